import ArgumentParser
import CharacterDeviceServer
import Glibc
import SystemPackage

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Say which nodes are served, how and by which process.",
    discussion: """
      Root's daemons and your own. Exit status 0 where at least one runs, 3 where none does.
      """)

  func run() throws {
    let found = RuntimeRecord.all()
    let guests = GuestState.ask(
      found.filter(\.isRunning).compactMap(\.record.tree), within: 1000)
    for daemon in found {
      let record = daemon.record
      if daemon.isRunning {
        let tree = record.tree.map { ", tree \($0)" } ?? ""
        print("\(record.node): \(record.backend), pid \(record.pid), \(record.machine)\(tree)")
        if let tree = record.tree, let note = guests[tree]?.note(node: record.node, tree: tree) {
          print(note)
        }
      } else {
        print(
          "\(record.node): pid \(record.pid) was killed; the next start there clears what it left")
      }
    }
    if !found.contains(where: \.isRunning) {
      print("no virt-walkerd is running")
      throw ExitCode.notRunning
    }
  }
}

struct Stop: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "End the daemon that serves a node, and wait until the node is gone.",
    discussion: "With it go the other nodes of the same daemon (serve --count).")

  @OptionGroup var node: NodeOptions

  func run() throws {
    try reportingFailures {
      let node = try node.node
      let record = try RuntimeRecord.running(at: node)
      guard kill(record.pid, SIGTERM) == 0 || errno == ESRCH else {
        throw Failure(
          "cannot end pid \(record.pid): \(Errno.current): run as its user or as root",
          status: .noPermission)
      }
      let pause: UInt32 = 10_000  // microseconds
      for _ in 0..<1000 {
        guard let found = RuntimeRecord.find(node), found.isRunning else { return }
        usleep(pause)
      }
      throw Failure(
        "pid \(record.pid) still serves \(node) after 10 s: kill -9 \(record.pid) ends it",
        status: .systemError)
    }
  }
}
