import ArgumentParser
import CharacterDeviceServer
import Glibc
import Scenarios
import SystemPackage

struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "List the nodes that are served, with backend and process.",
    discussion: """
      The list has the daemons of root and of the user. Exit status: 0 at least one daemon runs; 3 no daemon runs.
      """)

  func run() throws {
    try reportingFailures {
      let found = try RuntimeRecord.all()
      let guests = GuestState.ask(
        found.filter { !$0.hasEnded }.compactMap(\.record.tree), within: 5000)
      for daemon in found {
        print(describe(daemon).printable)
        if let tree = daemon.record.tree,
          let note = guests[tree]?.note(node: daemon.record.node, tree: tree)
        {
          print(note.printable)
        }
        if daemon.record.code != nil, !daemon.hasEnded, let tree = daemon.record.tree,
          let mistake = GuestState.lastMistake(tree, within: 5000)
        {
          print("  the last mistake of its code: \(mistake)".printable)
        }
      }
      if found.allSatisfy(\.hasEnded) {
        print("no virt-walkerd is running")
        throw ExitCode.notRunning
      }
    }
  }

  private func describe(_ daemon: RuntimeRecord.Found) -> String {
    let record = daemon.record
    let pid = "pid \(record.process.pid)"
    let place: String
    switch daemon.state {
    case .ended:
      return "\(record.node): \(pid) was killed; the next start there clears what it left"
    case .running, .hidden: place = pid
    case .elsewhere: place = "\(pid) of another pid namespace"
    }
    let tree = record.tree.map { ", tree \($0)" } ?? ""
    let code = record.code.map { ", \($0)" } ?? ""
    return "\(record.node): \(record.backend), \(place), \(record.machine)\(code)\(tree)"
  }
}

struct Stop: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stop",
    abstract: "End the daemon that serves a node, and wait until the node is gone.",
    discussion: "If the daemon serves several nodes (serve --count), all of them are removed.")

  @OptionGroup var node: NodeOptions

  func run() throws {
    try reportingFailures {
      let node = try node.node
      let found = try RuntimeRecord.running(at: node)
      let process = try handle(found, at: node)
      let pid = found.record.process.pid
      do throws(Errno) {
        try process.send(SIGTERM)
      } catch .noSuchProcess {
      } catch {
        throw Failure(
          "cannot end pid \(pid): \(error): run as its user or as root", status: .noPermission)
      }
      guard process.waitForEnd(milliseconds: 10_000) else {
        throw Failure(
          "pid \(pid) still serves \(node) after 10 s: kill -9 \(pid) ends it",
          status: .systemError)
      }
      // If the daemon was killed, its keeper removes the node a little later.
      let pause: UInt32 = 10_000  // microseconds
      for _ in 0..<1000 {
        guard let left = try RuntimeRecord.find(node),
          left.record.process == found.record.process
        else { return }
        usleep(pause)
      }
      throw Failure(
        "pid \(pid) has ended, and \(node) is still there: virt-walkerd serve clears it",
        status: .systemError)
    }
  }

  /// The handle of the process, if the system proves that the process is the daemon of the record.
  private func handle(
    _ found: RuntimeRecord.Found, at node: FilePath
  ) throws -> ServerProcess.Handle {
    let pid = found.record.process.pid
    switch found.state {
    case .running(let handle): return handle
    case .elsewhere, .ended:
      throw Failure(
        "\(node) is served by pid \(pid) of another pid namespace: stop it there",
        status: .unavailable)
    case .hidden:
      throw Failure(
        "the system does not show whether pid \(pid) is the daemon of \(node): see ps -p \(pid), and end it by kill \(pid)",
        status: .noPermission)
    }
  }
}
