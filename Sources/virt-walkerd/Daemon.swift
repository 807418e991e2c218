import ArgumentParser
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
      instances.append(try Instance(options, number: number, in: directory, code: code, log: log))
    }

    // The locks come first: without them, the daemon could replace the pid file of another daemon.
    pidFile = try options.pidFile.map(PIDFile.init)

    let loop = try EventLoop(waiting: AdaptiveWait(options.poll))
    try loop.add(signals.descriptor) {
      log.notice("\(signals.next()): removing \(describe(instances))")
      loop.stop()
    }
    let followers = try Followers(instances, loop)
    for instance in instances {
      try serve(instance, loop, followers)
      try instance.watchCode(in: loop)
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
        for tree in try mounts.missingTrees() { dropTree(tree, loop) }
      case .end:
        log.error(
          "the keeper was killed, so nothing removes \(describe(instances)) when the daemon ends: restart the daemon; otherwise, the next start removes the rest"
        )
        loop.remove(started.descriptor)
      }
    }
    try giveUpRights()
    announceReady(instances)
    try exit?.take(keepingStandardError: options.logFile != nil)
    try loop.run()
    if code == nil { systemd.send("STOPPING=1") }
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
      case .request: followers.noteNews(of: instance)
      case .nothing: break
      case .end: throw Failure(takenAway: instance.node)
      }
    }
    guard let tree = instance.tree else { return }
    try loop.add(tree.descriptor) {
      guard let result = try? tree.process(), result != .end else {
        dropTree(tree, loop)
        return
      }
      followers.noteNews(of: instance)
    }
    try loop.add(tree.workDescriptor) {
      guard !loop.isServingOthers else { return }
      tree.proceed()
      followers.noteNews(of: instance)
    }
    instance.onLongStep { loop.serveOthers(than: instance.server) }
  }

  /// Removes the tree from the loop; the device is served without a tree. A second call does nothing.
  private func dropTree(_ tree: FileTreeServer, _ loop: EventLoop) {
    guard tree.isConnected else { return }
    log.warning(
      "\(tree.path) was taken away from outside (umount): the node is served without a tree")
    loop.remove(tree.descriptor)
    loop.remove(tree.workDescriptor)
    tree.disconnect()
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

/// The clients that read a pipe of a tree. The daemon wakes all of them together after a delay, so that the device does
/// not wait for them at each byte.
private final class Followers {
  private let timer: DelayTimer
  /// A delay as short as people can see.
  private let delay = 10  // milliseconds

  init(_ instances: [Instance], _ loop: EventLoop) throws {
    timer = try DelayTimer()
    try loop.add(timer.descriptor) { [timer] in
      timer.finish()
      for instance in instances { instance.tree?.answerWaiting() }
    }
  }

  /// Starts the delay, because the machine may have new events.
  func noteNews(of instance: Instance) {
    if instance.tree?.hasWaiting == true { timer.start(milliseconds: delay) }
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
private func redirectStandardError(to path: FilePath) throws {
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
