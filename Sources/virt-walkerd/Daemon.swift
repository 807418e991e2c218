import ArgumentParser
import CLinux
import CharacterDeviceServer
import Glibc
import Logging
import Scenarios
import SystemPackage
import UserCode

/// The life of a serving process, from its options to its end. The daemon removes all that it has made, in reverse
/// order, if a step of the start fails and if a signal comes.
struct Daemon {
  private let options: Serve
  private let log: Logger
  private let systemd = Notification()

  init(_ options: Serve) throws {
    self.options = options
    try openStandardDescriptors()
    // If a file has reached the limit of its size, write(2) shall return an error instead of ending the daemon.
    signal(SIGXFSZ, SIG_IGN)
    if let logFile = options.logFile { try redirectStandardError(to: logFile) }
    let level = options.logLevel
    LoggingSystem.bootstrap { StandardErrorLog(label: $0, logLevel: level) }
    let log = Logger(label: "virt-walkerd")
    LibFuse.setLog { log.error("\($0)") }
    self.log = log
  }

  func run() throws {
    // The build and the boot of a kernel take long. A signal ends the process until then, and all that it has started with it.
    let kernel = try startKernel()
    let signals = try TerminationSignals()
    var instances: [Instance] = []
    var trees: TreesDirectory?
    var pidFile: PIDFile?
    var keeper: Keeper?
    var code: OwnCode?
    func cleanUp() {
      for instance in instances.reversed() { instance.remove() }
      trees?.remove()
      pidFile?.remove()
      // The locks go last: the next start waits for the lock of a node, and finds everything removed.
      for instance in instances { instance.unlock() }
    }
    defer {
      for instance in instances.reversed() { instance.disconnect() }
      kernel?.end()
      if let keeper { keeper.finish() } else { cleanUp() }
      code?.finish()
    }
    // The compiler comes first: a user who waits for its messages has no node for a moment.
    code = try options.code.map { try OwnCode($0, user: options.runAs.user) }
    let directory = try RuntimeDirectory()
    let numbers = options.count.map { (0..<$0).map(Optional.some) } ?? [nil]
    if options.count != nil, case .directory(let path) = options.inspection.tree {
      trees = try TreesDirectory(path)
    }
    for number in numbers {
      instances.append(
        try Instance(
          options, number: number, in: directory, code: code, kernel: kernel, log: log))
    }

    // The locks come first: without them, the daemon could replace the pid file of another daemon.
    pidFile = try options.pidFile.map(PIDFile.init)

    let loop = try EventLoop(waiting: AdaptiveWait(options.poll))
    try loop.add(signals.descriptor) {
      log.notice("\(signals.next()): removing \(describe(instances))")
      loop.stop()
    }
    let parent = options.endWithParent ? try parentProcess() : nil
    if let parent {
      try loop.add(parent.descriptor) {
        log.notice("the parent process has ended: removing \(describe(instances))")
        loop.stop()
      }
    }
    let followers = try Followers(of: instances.compactMap(\.tree), loop)
    for instance in instances {
      try serve(instance, loop, followers)
      try instance.watchCode(in: loop) { followers.noteNews(of: instance.tree) }
    }
    if let code {
      try code.watch(in: loop) { for instance in instances { try instance.bootAnew() } }
    }
    let mounts = try Mounts(of: instances)
    let exit = try options.readyDescriptor.map(Detached.Exit.init)

    let rights = directory.descriptors + [trees?.directory, pidFile?.directory].compactMap(\.self)
    let started = try Keeper(
      name: "walkerd-keeper",
      keeping: rights.map(\.descriptor) + instances.flatMap(\.keptDescriptors),
      unmounts: instances.contains(where: \.isMounted), cleanUp: cleanUp)
    keeper = started
    for right in rights { right.close() }
    for instance in instances { instance.closeRemovalDescriptors() }
    try loop.add(started.descriptor) {
      switch started.readEvent() {
      case .mountsChanged:
        for tree in try mounts.missingTrees() { tree.drop(from: loop, log, "the node is served") }
      case .end:
        log.error(
          "the keeper was killed, so nothing removes \(describe(instances)) when the daemon ends: restart the daemon; otherwise, the next start removes the rest"
        )
        loop.remove(started.descriptor)
      }
    }
    let programCode = ProgramCode()
    try giveUpRights()
    announceReady(instances)
    try exit?.take(keepingStandardError: options.logFile != nil)
    programCode.releasePages()
    try loop.run()
    if code == nil { systemd.send("STOPPING=1") }
  }

  /// A descriptor that is readable when the parent has ended: a change of the user clears PR_SET_PDEATHSIG.
  private func parentProcess() throws -> OwnedDescriptor {
    let descriptor = clinux_pidfd_open(getppid())
    guard descriptor >= 0 else { throw Errno.current }
    return OwnedDescriptor(FileDescriptor(rawValue: descriptor))
  }

  /// Starts the real kernel, if the options ask for one.
  private func startKernel() throws -> InstanceKernel? {
    guard options.realKernel.engine == .kernel else { return nil }
    return try InstanceKernel(
      options, MachineDescription(options.machine),
      eventCapacity: Instance.eventCapacity(nodes: 1), at: options.node.node, log: log)
  }

  /// Gives up all rights except the descriptors that are open.
  private func giveUpRights() throws {
    let confinement = try enterSandbox()
    let seccomp = confinement.seccomp ? "seccomp" : "no seccomp in this kernel"
    let landlock = confinement.landlock.map { "Landlock \($0)" } ?? "no Landlock in this kernel"
    log.debug("serves as uid \(geteuid()), without capabilities; \(seccomp), \(landlock)")
  }

  private func enterSandbox() throws(NodeError) -> Sandbox.Confinement {
    do throws(NodeError) {
      return try Sandbox.enter(
        as: options.runAs.user,
        advice: "run with --user root: the daemon gives up root's capabilities, too",
        messages: options.code != nil)
    } catch {
      guard error.kind == .notPermitted, options.runAs.isDefault else { throw error }
      // The root user of a container may be unable to become another user.
      log.warning("\(error.problem): continues as root, without root's capabilities")
    }
    return try Sandbox.enter(as: nil, messages: options.code != nil)
  }

  /// Answers the requests for node and tree.
  private func serve(_ instance: Instance, _ loop: EventLoop, _ followers: Followers) throws {
    try loop.add(instance.server) { result in
      switch result {
      case .request: followers.noteNews(of: instance.tree)
      case .nothing: break
      case .end: throw Failure(takenAway: instance.node)
      }
    }
    guard let tree = instance.tree else { return }
    try loop.add(tree.descriptor) {
      guard let result = try? tree.process(), result != .end else {
        tree.drop(from: loop, log, "the node is served")
        return
      }
      followers.noteNews(of: instance.tree)
    }
    try loop.add(tree.workDescriptor) {
      guard !loop.isServingOthers else { return }
      tree.proceed()
      followers.noteNews(of: instance.tree)
    }
    instance.onLongStep { loop.serveOthers(than: instance.server) }
    instance.handleRequestsBeforeReads(in: loop)
  }

  /// Tells the starter of the daemon and systemd that each node answers.
  private func announceReady(_ instances: [Instance]) {
    let lines = instances.map {
      "\($0.node) is ready (\($0.backend.rawValue), pid \(getpid()))".printable + "\n"
    }
    // The starter of the daemon may have ended. A failed write is no error then.
    _ = try? FileDescriptor.standardOutput.writeAll(lines.joined().utf8)
    let state = "READY=1\nSTATUS=serving \(describe(instances)) by \(instances[0].backend.rawValue)"
    // A daemon that may send messages keeps no socket by which others can be reached.
    if options.code == nil { systemd.send(state) } else { systemd.end(state) }
  }

  /// The path of the node, or the paths of the first and the last of several nodes.
  private func describe(_ instances: [Instance]) -> String {
    let nodes = instances.map(\.node.string)
    return nodes.count == 1 ? nodes[0] : "\(nodes[0]) to \(nodes[nodes.count - 1])"
  }
}

extension Failure {
  fileprivate init(takenAway node: FilePath) {
    self.init(
      "\(node) was taken away from outside (umount, or an abort of the connection): start again",
      status: .unavailable)
  }
}

/// The mounts of nodes and trees.
private final class Mounts {
  private let table: MountTable
  private var nodes: [MountTable.Mount: FilePath] = [:]
  private var trees: [MountTable.Mount: FileTreeServer] = [:]

  init(of instances: [Instance]) throws(Errno) {
    table = try MountTable()
    let mounts = table.mounts(at: instances.map(\.node) + instances.compactMap(\.tree?.path))
    for instance in instances {
      // A node that is a character device has no mount.
      if let mount = mounts[instance.node] { nodes[mount] = instance.node }
      if let tree = instance.tree, let mount = mounts[tree.path] { trees[mount] = tree }
    }
  }

  /// Returns the trees that were unmounted since the last call.
  ///
  /// - Throws: ``Failure`` if a node was unmounted. A served node would remain for the clients that have it open, and
  ///   later clients would open the file below the mount.
  func missingTrees() throws(Failure) -> [FileTreeServer] {
    let missing = table.missing(of: Array(nodes.keys) + trees.keys)
    for mount in missing {
      if let node = nodes[mount] { throw Failure(takenAway: node) }
    }
    return missing.compactMap { trees.removeValue(forKey: $0) }
  }
}

extension FileTreeServer {
  /// Takes a tree that was unmounted out of the loop. A second call does nothing.
  ///
  /// - Parameter rest: The words for what goes on without the tree.
  func drop(from loop: EventLoop, _ log: Logger, _ rest: String) {
    guard isConnected else { return }
    log.warning("\(path) was taken away from outside (umount): \(rest) without a tree")
    loop.remove(descriptor)
    loop.remove(workDescriptor)
    disconnect()
  }
}

/// The clients that read a pipe of a tree. The daemon wakes all of them together after a delay, so that the device does
/// not wait for them at each byte.
final class Followers {
  private let timer: DelayTimer
  /// A delay as short as people can see.
  private let delay = 10  // milliseconds

  init(of trees: [FileTreeServer], _ loop: EventLoop) throws {
    timer = try DelayTimer()
    try loop.add(timer.descriptor) { [timer] in
      timer.finish()
      for tree in trees { tree.answerWaiting() }
    }
  }

  /// Starts the delay, because the machine may have new events.
  func noteNews(of tree: FileTreeServer?) {
    if tree?.hasWaiting == true { timer.start(milliseconds: delay) }
  }
}

/// Makes sure that descriptors 0, 1 and 2 are open. Otherwise the next open file would get such a number, and output
/// would go to that file.
///
/// Standard input becomes /dev/null, because the daemon reads nothing from it.
private func openStandardDescriptors() throws {
  close(STDIN_FILENO)
  var descriptor: Int32
  repeat {
    descriptor = open("/dev/null", O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw Failure(
        .current, doing: "open", at: "/dev/null", advice: "look at its mode: ls -l /dev/null")
    }
  } while descriptor <= STDERR_FILENO
  close(descriptor)
}

/// Opens `path` for appending in place of standard error.
func redirectStandardError(to path: FilePath) throws {
  do throws(Errno) {
    let file = try DirectoryEntry(path, followsLink: true)
      .openRegularFile(O_WRONLY | O_APPEND | O_CREAT, mode: 0o640)
    dup2(file.descriptor.rawValue, STDERR_FILENO)
  } catch .notPermitted, .noSuchAddressOrDevice {
    throw Failure(
      "cannot write the log \(path): it is not a regular file: choose another --log-file, or none to log to standard error",
      status: .cannotCreate)
  } catch {
    let advice =
      error == .tooManySymbolicLinkLevels
      ? "a symbolic link on the way belongs to another user: choose another --log-file"
      : "choose another --log-file"
    throw Failure(error, doing: "write the log", at: path, advice: advice)
  }
}
