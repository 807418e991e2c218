import ArgumentParser

@main
struct VirtWalkerd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "virt-walkerd",
    abstract: "Puts /dev/virt_walker on this machine: a byte hidden in a stage-2 page-table entry.",
    discussion: """
      Each one-byte write or read of the node goes through a guest driver, a trapped MMIO access and KVM's stage-2 \
      walk of a simulated arm64 machine, and the byte lives in bits [58:51] of the entry of guest physical address \
      0x40000000.

      Exit status: 0 when ended by SIGTERM, SIGINT or SIGHUP; 64 wrong usage, 69 not possible on this machine, \
      71 a system error, 73 the node exists or is served already, 77 not permitted. Those of status, watch, replay and \
      explain: virt-walkerd help COMMAND.
      """,
    version: version,
    subcommands: [
      Serve.self, Status.self, Stop.self, Watch.self, Replay.self, Explain.self,
    ],
    defaultSubcommand: Serve.self)
}
