import Glibc

/// A daemon with its node and its clients, and the operations of the faults on them.
final class TestBed {
  struct Settings {
    var daemon: String
    var checker: String
    var backend: Backend
    var kills: Int
    var seconds: Double
    var operations: Int
  }

  let settings: Settings
  let tap = TAP()
  let name: String
  let node: String
  let tree: String
  /// A directory for temporary files.
  let temporary: String
  private let record: String
  /// A cgroup that a fault has made.
  var cgroup: String?
  /// Programs in the background. They are killed at the end of this program.
  private var children: [Child] = []
  private var isClean = false
  /// The output of the last command in a namespace.
  private var inside = ""
  private var clients: Child?

  init(_ settings: Settings) throws {
    self.settings = settings
    name = "virt_walker_faults_\(getpid())"
    node = "/dev/\(name)"
    tree = "/run/\(name)"
    record = Self.record(of: name)
    temporary = "/tmp/\(name)"
    try require(mkdir(temporary, 0o700) == 0, "cannot create \(temporary): \(errorText())")
  }

  /// Ends the daemon and all processes in the background, and removes all files.
  func cleanUp() {
    if isClean { return }
    isClean = true
    endAll()
    if let cgroup { rmdir(cgroup) }
    shellAtTheEnd("umount '\(temporary)/cgroup' 2>/dev/null; rm -rf '\(temporary)'")
  }

  /// Ends the daemon and all programs in the background, in any state of theirs.
  func endAll() {
    let names = [name, "\(name)0"].filter { exists(Self.record(of: $0)) }
    for name in names {
      if let server = server(of: name) { Glibc.kill(server, SIGCONT) }
    }
    for child in children where child.poll() == nil { child.killGroup() }
    for name in names {
      // If a signal ends this program, the wait of a Child ends at once.
      shellAtTheEnd("timeout -k 5 60 '\(settings.daemon)' stop --name \(name) >/dev/null 2>&1")
    }
  }

  private func shellAtTheEnd(_ command: String) {
    guard let child = try? Child(["/bin/sh", "-c", command]) else { return }
    let end = now() + 70
    while child.poll() == nil, now() < end { usleep(10_000) }
  }

  // MARK: - Checks

  func check(_ description: String, _ body: () throws -> Void) throws {
    try tap.check(description, body)
  }

  // MARK: - The daemon

  private var serve: [String] {
    [settings.daemon, "serve", "--detach", "--backend", settings.backend.rawValue, "--name", name]
  }

  func start(_ options: String...) throws { try start(by: serve + options) }

  /// Starts the daemon in a cgroup.
  func start(inCgroup cgroup: String) throws {
    try start(
      by: [
        "/bin/sh", "-c", "echo $$ >\"$1\" && shift && exec \"$@\"", "sh", "\(cgroup)/cgroup.procs",
      ] + serve)
  }

  private func start(by command: [String]) throws {
    let start = try run(command, output: "\(temporary)/start", seconds: 60 * patience)
    try require(
      start.exit == .status(0), "the daemon does not start, \(start.exit):\n\(start.output)")
  }

  /// Starts the daemon with a limit of its own, and returns whether it has started, and its output.
  func startLimited(_ limit: String) throws -> (hasStarted: Bool, output: String) {
    let start = try run(
      ["/bin/sh", "-c", "ulimit \(limit) && exec \"$@\"", "sh"] + serve,
      output: "\(temporary)/limited", seconds: 60 * patience)
    return (start.exit == .status(0), start.output)
  }

  /// Ends the daemon by its command `stop`.
  func endDaemon(name: String? = nil) throws {
    let stop = try run(
      [settings.daemon, "stop", "--name", name ?? self.name], output: "\(temporary)/stop",
      seconds: 60 * patience)
    try require(stop.exit == .status(0), "stop: \(stop.exit):\n\(stop.output)")
  }

  /// Ends the daemon, and checks that nothing is left.
  func stop() throws {
    try endDaemon()
    try nothingLeft()
  }

  /// The factor of time limits. An emulated machine is slow.
  private var patience: Double { settings.backend == .cuse ? 5 : 1 }

  /// The file that the daemon of a node keeps about itself.
  private static func record(of name: String) -> String { "/run/virt-walkerd/dev%2F\(name)" }

  private func server(of name: String) -> pid_t? {
    for line in readLines(Self.record(of: name)) where line.hasPrefix("pid=") {
      return pid_t(line.dropFirst("pid=".count))
    }
    return nil
  }

  func server() throws -> pid_t {
    guard let server = server(of: name) else { throw Failed("\(record) names no process") }
    return server
  }

  /// The keeper, a child of the server that clears up after it.
  func keeper() throws -> pid_t {
    let server = try server()
    for process in directory("/proc").compactMap(pid_t.init) {
      if readFile("/proc/\(process)/status")?.contains("\nPPid:\t\(server)\n") ?? false {
        return process
      }
    }
    throw Failed("there is no keeper")
  }

  func openDescriptors(of process: pid_t) -> Int { directory("/proc/\(process)/fd").count }

  /// The number of mounts at the tree.
  var treeMounts: Int {
    readLines("/proc/mounts").count { $0.contains(" \(tree) ") }
  }

  /// The description of a mount, a file or a record that is left; nil if nothing is left.
  private var left: String? {
    for mount in readLines("/proc/mounts")
    where mount.contains(" \(node)") || mount.contains(" \(tree)") {
      return String(mount)
    }
    return [node, tree, record].first(where: exists).map { "\($0) is left" }
  }

  func nothingLeft() throws {
    if try soon({ left == nil }) { return }
    if let left { throw Failed(left) }
  }

  // MARK: - Clients

  /// Runs a shell command on the node in a process of its own. The environment has $node, $tree, $name, $daemon, $backend and
  /// $tmp.
  func shell(_ command: String, seconds: Double = 60) throws -> (exit: Exit, output: String) {
    try run(
      ["/bin/sh", "-c", command], environment: environment, output: "\(temporary)/shell",
      seconds: seconds * patience)
  }

  private var environment: [String] {
    [
      "node=\(node)", "tree=\(tree)", "name=\(name)", "daemon=\(settings.daemon)",
      "backend=\(settings.backend)", "tmp=\(temporary)",
    ]
  }

  /// Starts a shell command in the background.
  func background(_ command: String, output: String = "/dev/null") throws -> Child {
    try background(["/bin/sh", "-c", command], output: output)
  }

  private func background(_ arguments: [String], output: String) throws -> Child {
    let child = try Child(arguments, environment: environment, output: output)
    children.append(child)
    return child
  }

  func writeAndRead(_ character: String) throws {
    let result = try shell(
      "[ -e \"$node\" ] && printf \(character) >\"$node\" && head -c 1 \"$node\"")
    try require(result.output, is: character)
    try require(result.exit, is: .status(0))
  }

  /// Checks that a read of one byte succeeds.
  func read() throws {
    let result = try shell("head -c 1 \"$node\" >/dev/null")
    try require(result.exit == .status(0), "\(result.exit): \(result.output)")
  }

  /// Makes a check with eight clients or more, of which no call may fail. Their counts are printed for people.
  func check(
    _ description: String, bytesOf node: String? = nil, _ options: [String], figures: Bool = true
  ) throws {
    var counts = ""
    try check(description) {
      let checked = try run(
        [settings.checker, node ?? self.node] + options, output: "\(temporary)/checked",
        seconds: settings.seconds + 1200)
      counts = checked.output
      try require(checked.exit == .status(0), "\(checked.exit)\n\(checked.output)")
    }
    if figures { tap.comment(counts) }
  }

  /// Starts clients for a fault during which no call may fail.
  func startUndisturbedClients(_ options: String...) throws -> Child {
    try background([settings.checker, node] + options, output: "\(temporary)/clients")
  }

  /// Starts clients that end with an error, and waits until all have opened the node.
  func startClients(_ options: String...) throws {
    let clients = try background(
      [settings.checker, node, "--until-error", "--seconds", "100"] + options,
      output: "\(temporary)/clients")
    self.clients = clients
    let haveOpened = try soon {
      clients.printed.contains("all clients have opened it") || clients.poll() != nil
    }
    try require(haveOpened, "the clients have not opened the node after a minute")
  }

  /// Waits for the clients, and checks that each of them has ended with an error of docs/faults.md, and that no byte is wrong.
  func waitForClients() throws {
    guard let clients else { throw Failed("there are no clients") }
    self.clients = nil
    let exit = try clients.wait(seconds: 150 * patience)
    let text = clients.printed
    try require(exit == .status(0), "\(exit)\n\(text)")
    guard let failed = text.firstMatch(of: #/clients that failed: (.*); linearizable/#) else {
      throw Failed("no client has failed:\n\(text)")
    }
    for failure in failed.output.1.split(separator: ", ") {
      let isKnown =
        failure.wholeMatch(
          of:
            #/\d+ x [a-z]+: (Software caused connection abort|Transport endpoint is not connected|No such device)/#
        ) != nil
      try require(isKnown, "docs/faults.md does not know the error '\(failure)'\n\(text)")
    }
  }

  // MARK: - Mount namespaces

  /// A shell command that starts the daemon.
  static let serve =
    #"timeout -k 5 50 "$daemon" serve --detach --backend "$backend" --name "$name""#

  /// Runs a shell command in a mount namespace of its own, and checks its exit status. `shows` checks its output.
  func inside(status: Int32, _ command: String) throws {
    inside = ""
    let result = try run(
      ["unshare", "-m", "sh", "-c", command], environment: environment,
      output: "\(temporary)/inside", seconds: 60 * patience)
    inside = result.output
    try require(
      result.exit == .status(status),
      "expected exit status \(status), got \(result.exit)\n\(inside)")
  }

  func shows(_ words: String) throws { try require(inside, says: words) }

  func showsNot(_ words: String) throws {
    try require(!inside.contains(words), "'\(words)' is in:\n\(inside)")
  }
}
