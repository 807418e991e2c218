import ArgumentParser
import Glibc

/// The program that breaks the surroundings of virt-walkerd and checks the behaviour that its users see.
@main
struct FaultChecker: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fault-checker",
    abstract:
      "Breaks the surroundings of virt-walkerd, and checks the behaviour that its users see.",
    discussion: """
      docs/faults.md has a table of the faults. node-checker runs around each fault, and proves that no byte is lost or mixed \
      up. The output is TAP (testanything.org).

      The program makes nodes in /dev, kills daemons that it has started itself, and mounts over /run and /dev in mount \
      namespaces of its own. It needs root; the fault 'cgroup' needs a memory controller of cgroups, version 1 or 2.

      Exit status: 0 if all checks passed; 1 if a check failed; 64 for wrong usage; 128 and its number after a signal.
      """)

  @Option(help: ArgumentHelp("The program virt-walkerd.", valueName: "file"))
  var daemon = ".build-static/release/virt-walkerd"

  @Option(help: ArgumentHelp("The program node-checker.", valueName: "file"))
  var checker = ".build-static/release/node-checker"

  @Option(
    help: """
      The backend of the daemon. cuse is for the virtual machine of scripts/vm/cuse-vm: the fault 'clock' sets the clock of the \
      machine.
      """)
  var backend = Backend.fuse

  @Option(help: "The number of kills under load.")
  var kills = 10

  @Option(
    help: "The length of a check without a fault in seconds; by default 2, and 10 with cuse.")
  var seconds: Double?

  @Option(help: "The number of writes and reads in which memory may not grow.")
  var operations = 20_000

  @Flag(help: "Only prints the names of the faults that the backend has.")
  var list = false

  @Argument(
    help: ArgumentHelp(
      "The faults; by default all faults of the backend.", valueName: "fault")
  )
  var faults: [String] = []

  func validate() throws {
    for name in faults where !Fault.all.contains(where: { $0.name == name }) {
      throw ValidationError("there is no fault '\(name)': --list prints the names")
    }
    guard kills > 0, operations >= 1000, seconds.map({ $0 > 0 && $0 < 1e5 }) ?? true else {
      throw ValidationError(
        "--kills is 1 or more; --operations is 1000 or more; --seconds is more than 0 and less than 100000"
      )
    }
  }

  func run() throws {
    let known = Fault.all.filter { $0.backends.contains(backend) }
    if list {
      for fault in known { print(fault.name) }
      return
    }
    for name in faults where !known.contains(where: { $0.name == name }) {
      throw ValidationError("the backend \(backend) has no fault '\(name)'")
    }
    say("TAP version 13")
    guard getuid() == 0 else { try bailOut("the nodes are in /dev: run it as root") }
    for program in [daemon, checker] where access(program, X_OK) != 0 {
      let product = program.split(separator: "/").last ?? ""
      try bailOut("there is no program \(program): scripts/build-static \(product)")
    }
    catchSignals()
    let bed = try TestBed(
      TestBed.Settings(
        daemon: try absolute(daemon), checker: try absolute(checker), backend: backend,
        kills: kills,
        // An emulated machine is slow.
        seconds: seconds ?? (backend == .cuse ? 10 : 2), operations: operations))
    defer { bed.cleanUp() }
    do {
      for fault in known where faults.isEmpty || faults.contains(fault.name) {
        do {
          try fault.check(bed)
        } catch let failed as Failed {
          // A step between two checks has failed, and the rest of this fault cannot be checked.
          try bed.check("\(fault.name): all checks are made") { throw failed }
          bed.endAll()
        }
      }
    } catch let interruption as Interruption {
      bed.cleanUp()
      throw ExitCode(128 + interruption.signal)
    }
    bed.tap.finish()
    guard bed.tap.failures == 0 else { throw ExitCode.failure }
  }

  private func bailOut(_ reason: String) throws -> Never {
    say("Bail out! \(reason)")
    throw ExitCode.failure
  }
}

/// The way in which a node is made.
enum Backend: String, ExpressibleByArgument, CaseIterable {
  case fuse, cuse
}

/// A fault, with checks of the behaviour that users see.
struct Fault: Sendable {
  let name: String
  let backends: Set<Backend>
  let check: @Sendable (TestBed) throws -> Void

  init(
    _ name: String, backends: Set<Backend> = [.fuse, .cuse],
    check: @escaping @Sendable (TestBed) throws -> Void
  ) {
    self.name = name
    self.backends = backends
    self.check = check
  }

  static let all: [Fault] = [
    .bytes, .kill, .killBoth, .stopDaemon, .stopClients, .killClients, .descriptors, .addressSpace,
    .cgroup, .runReadOnly, .runFull, .devReadOnly, .noFusermount, .unmount, .clock, .manyClients,
    .memory,
  ]
}
