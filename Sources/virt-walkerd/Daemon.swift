import ArgumentParser
import CharacterDeviceServer
import Glibc
import Logging
import Scenarios
import SystemPackage

/// The life of a serving process, from its options to its end. What it makes it takes away in reverse order, whether
/// the next step fails or a signal comes.
struct Daemon {
  private let options: Serve
  private let log: Logger
  private let systemd = Notification()

  init(_ options: Serve) throws {
    self.options = options
    try openStandardDescriptors()
    // A file that may not grow any more is an error that a write returns, and no end of the daemon.
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
    func cleanUp() {
      for instance in instances.reversed() { instance.remove() }
      trees?.remove()
      pidFile?.remove()
      // Last: the next start waits for the lock of one node, and all is gone then.
      for instance in instances { instance.unlock() }
    }
    defer {
      for instance in instances.reversed() { instance.disconnect() }
      if let keeper { keeper.finish() } else { cleanUp() }
    }
    let directory = try RuntimeDirectory()
    let numbers = options.count.map { (0..<$0).map(Optional.some) } ?? [nil]
    if options.count != nil, case .directory(let path) = options.inspection.tree {
      trees = try TreesDirectory(path)
    }
    for number in numbers {
      instances.append(try Instance(options, number: number, in: directory, log: log))
    }

    // After the locks: another daemon's file is not to be replaced.
    pidFile = try options.pidFile.map(PIDFile.init)

    let loop = try EventLoop(waiting: AdaptiveWait(options.poll))
    try loop.add(signals.descriptor) {
      log.notice("\(signals.next()): \(describe(instances)) goes away")
      loop.stop()
    }
    let followers = try Followers(instances, loop)
    for instance in instances { try serve(instance, loop, followers) }
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
          "somebody has killed the keeper, which takes \(describe(instances)) away in the end: restart the daemon, or the next start clears what is left"
        )
        loop.remove(started.descriptor)
      }
    }
    try giveUpRights()
    announceReady(instances)
    try exit?.take(keepingStandardError: options.logFile != nil)
    try loop.run()
    systemd.send("STOPPING=1")
  }

  /// From here on, nothing but what is open.
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
        advice: "run with --user root, which has no capabilities then, either")
    } catch {
      guard error.kind == .notPermitted, options.runAs.isDefault else { throw error }
      // A container's root may have no other users.
      log.warning("\(error.problem): runs on as root, without root's capabilities")
    }
    return try Sandbox.enter(as: nil)
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

  /// The tree is gone, and the device serves without. A second call does nothing.
  private func dropTree(_ tree: FileTreeServer, _ loop: EventLoop) {
    guard tree.isConnected else { return }
    log.warning(
      "\(tree.path) was taken away from outside (umount): the node is served without a tree")
    loop.remove(tree.descriptor)
    loop.remove(tree.workDescriptor)
    tree.disconnect()
  }

  /// Tells whoever waits that each node answers.
  private func announceReady(_ instances: [Instance]) {
    let lines = instances.map {
      "\($0.node) is ready (\($0.backend.rawValue), pid \(getpid()))".printable + "\n"
    }
    // Whoever started the daemon may have gone already: then nobody reads this, and that is no error.
    _ = try? FileDescriptor.standardOutput.writeAll(lines.joined().utf8)
    systemd.send(
      "READY=1\nSTATUS=serving \(describe(instances)) by \(instances[0].backend.rawValue)")
  }

  /// The node, or the first and the last of many.
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
      // A character device is no mount.
      if let mount = mounts[instance.node] { nodes[mount] = instance.node }
      if let tree = instance.tree, let mount = mounts[tree.path] { trees[mount] = tree }
    }
  }

  /// The trees that were unmounted since this was asked last.
  ///
  /// - Throws: Where a node was. While clients have it open it would go on for them, and who opens it later would write to the
  ///   file below.
  func missingTrees() throws(Failure) -> [FileTreeServer] {
    let missing = table.missing(of: Array(nodes.keys) + trees.keys)
    for mount in missing {
      if let node = nodes[mount] { throw Failure(takenAway: node) }
    }
    return missing.compactMap { trees.removeValue(forKey: $0) }
  }
}

/// Those who follow a pipe of a tree. They are told of news a little later and all at once, so that the device does not
/// wait for them at each byte.
private final class Followers {
  private let timer: DelayTimer
  /// As often as people can see.
  private let delay = 10  // milliseconds

  init(_ instances: [Instance], _ loop: EventLoop) throws {
    timer = try DelayTimer()
    try loop.add(timer.descriptor) { [timer] in
      timer.finish()
      for instance in instances { instance.tree?.answerWaiting() }
    }
  }

  /// Something may have happened to a machine.
  func noteNews(of instance: Instance) {
    if instance.tree?.hasWaiting == true { timer.start(milliseconds: delay) }
  }
}

/// Makes sure that 0, 1 and 2 are open: else the next file takes the number, and what is printed goes there.
///
/// Nothing is read from standard input, so what it was is not kept for the server.
private func openStandardDescriptors() throws {
  close(STDIN_FILENO)
  var descriptor: Int32
  repeat {
    descriptor = open("/dev/null", O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw Failure(
        .current, doing: "open", at: "/dev/null", advice: "see why: ls -l /dev/null")
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
      "cannot write the log \(path): it is no regular file: choose another --log-file, or none to log to standard error",
      status: .cannotCreate)
  } catch {
    let advice =
      error == .tooManySymbolicLinkLevels
      ? "a symbolic link on the way belongs to another user: choose another --log-file"
      : "choose another --log-file"
    throw Failure(error, doing: "write the log", at: path, advice: advice)
  }
}
