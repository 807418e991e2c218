import CLinux
import CharacterDeviceServer
import Glibc
import Inspection
import KernelEngine
import Logging
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// One node with its machine and its tree.
final class Instance {
  let node: FilePath
  let backend: Backend
  /// The server of the node.
  let server: any NodeServer
  /// The server of the tree; nil if there is no tree.
  private(set) var tree: FileTreeServer?

  private let options: Serve
  private let log: Logger
  private let lock: NodeLock
  private let device: InspectedDevice
  /// The user's own code; nil if there is none.
  private let code: InstanceCode?
  /// The real kernel; nil if the engine is the model.
  private let kernel: InstanceKernel?

  /// The name of the program and its advice, for the library.
  static let application = {
    var advice = Application.Advice()
    advice.otherNode = "choose another node with --name or --path"
    advice.ownNode = "a node that you may make: --path FILE"
    advice.otherDirectory = "choose another directory: --tree DIR"
    advice.ownDirectory = "a directory that you may make: --tree DIR"
    advice.cuseIsMissing = "modprobe cuse, or run with --backend fuse"
    advice.cuseIsRefused = "run as root, or with --backend fuse and a --path of your own"
    advice.nodeDoesNotAppear = "/dev has to be a devtmpfs; run with --backend fuse here"
    return Application(name: "virt-walkerd", fileSystem: "virt_walker", advice: advice)
  }()

  /// Makes the node and the tree. Both exist when the initializer returns.
  ///
  /// - Parameter number: The number of this node among several; nil if the daemon serves one node.
  init(
    _ options: Serve, number: Int?, in directory: RuntimeDirectory, code: OwnCode?,
    kernel: InstanceKernel?, log: Logger
  ) throws {
    self.kernel = kernel
    self.options = options
    self.log = log
    node = try options.node.node.numbered(number)
    lock = try NodeLock(node, in: directory)
    do {
      (device, self.code) = try Self.boot(options, node, code, kernel)
      // All nodes get the same backend for the same reason, so only the first node logs the reason.
      (server, backend) = try Self.makeServer(
        options, node, device, notice: { if number ?? 0 == 0 { log.notice("\($0)") } })
    } catch {
      lock.release()
      throw error
    }
    do {
      tree = try makeTree(number: number)
      logGuestStops()
      logBootFailures()
      try lock.write(
        RuntimeRecord(
          node: node, backend: backend.rawValue,
          machine: options.machine.summary
            + (kernel.map { ", Linux \($0.engine.kernelRelease)" } ?? ""),
          tree: tree?.path, code: options.code?.description,
          process: ServerProcess(servingAs: options.runAs.user?.id ?? geteuid())))
    } catch {
      self.code?.end()
      tree?.close()
      server.close()
      unlock()
      throw error
    }
  }

  /// Logs once why clients get errors, and how to start the guest again.
  private func logGuestStops() {
    let next = tree.map { "to boot the machine anew: echo 1 > \($0.path)/reset" }
    device.onGuestStop = { [log, node] reason in
      log.error(
        "\(node): the guest has stopped: \(reason). Each read and write of the node fails with EIO: \(next ?? "restart the daemon")"
      )
    }
  }

  /// Logs why a reset has failed.
  private func logBootFailures() {
    device.onBootFailure = { [log, node] failure in
      for line in failure.details { log.error("\(line)") }
      log.error(
        "\(node): \(failure.reason). Each read and write of the node fails with EIO until a reset")
    }
  }

  /// Ends the connections of node and tree, and unloads the user's module.
  func disconnect() {
    code?.end()
    tree?.disconnect()
    server.disconnect()
  }

  /// Removes the node and the tree.
  func remove() {
    tree?.remove()
    server.remove()
  }

  /// Releases the lock, so that another daemon can serve the node.
  func unlock() { lock.release() }

  /// The descriptors for the keeper: the lock, which holds while any process has it open, and the descriptors for
  /// ``remove()``.
  var keptDescriptors: [FileDescriptor] {
    [lock.descriptor] + server.removalDescriptors + (tree?.removalDescriptors ?? [])
  }

  /// Closes the descriptors that only the keeper needs.
  func closeRemovalDescriptors() {
    server.closeRemovalDescriptors()
    tree?.closeRemovalDescriptors()
  }

  /// Whether the end of the daemon has to unmount something.
  var isMounted: Bool { backend == .fuse || tree != nil }

  /// Sets the function that serves other nodes during a long step of the control file.
  func onLongStep(_ serve: @escaping () -> Bool) { device.onLongStep = serve }

  /// Lets the node handle the requests that are there before a file of the tree is read.
  func handleRequestsBeforeReads(in loop: EventLoop) {
    device.onRead = { [unowned self] in
      loop.handleRequests(of: server)
      guard let engine = kernel?.engine, engine.isReleasing, !loop.isServingOthers else { return }
      device.goOn { engine.waitForReleases() }
    }
  }

  /// The number of events that each node keeps. All nodes together need a few megabytes for them.
  static func eventCapacity(nodes: Int) -> Int {
    var capacity = 1 << 14
    while capacity * nodes > 1 << 17, capacity > 1 << 9 { capacity /= 2 }
    return capacity
  }

  /// Boots the machine anew, as a write to the file `reset` of the tree does.
  func bootAnew() throws { try device.bootAnew() }

  /// Takes the events of the user's own code, and those of the real kernel.
  func watchCode(in loop: EventLoop, onNews: @escaping () -> Void) throws(Errno) {
    try code?.watch(device, in: loop)
    try kernel?.watch(device, in: loop, onNews: onNews)
  }

  /// Boots the machine behind a node.
  static func boot(
    _ options: Serve, _ node: FilePath, _ code: OwnCode?, _ kernel: InstanceKernel?
  ) throws -> (InspectedDevice, InstanceCode?) {
    let device: InspectedDevice
    var own: InstanceCode?
    do {
      let machine = MachineDescription(options.machine)
      let capacity = eventCapacity(nodes: options.count ?? 1)
      let engine: any InspectedDevice.NodeEngine
      if let kernel {
        engine = kernel.engine
      } else if let code {
        let made = try InstanceCode(code, options, machine, eventCapacity: capacity, at: node)
        engine = made.engine
        own = made
      } else {
        engine = try ModelEngine(
          machine, driver: VirtWalkerDriver.self, eventCapacity: capacity)
      }
      device = InspectedDevice(
        engine, node: node.string, task: ("virt-walkerd", getpid()),
        clock: clinux_monotonic_nanoseconds, cpuClock: clinux_thread_cpu_nanoseconds,
        onGuestLine: lineLog("guest", options), onHostLine: lineLog("host", options))
    } catch let failure as CodeFailure {
      throw failure
    } catch {
      throw Failure(
        "the machine does not boot: \(error): this is a defect of virt-walkerd",
        status: .systemError)
    }
    if let own { device.codeReport = { own.report } }
    if let kernel { device.codeReport = { kernel.report } }
    return (device, own)
  }

  /// The function that logs the lines of a kernel; nil at a higher level, where the log drops these lines, so that their texts are not made.
  private static func lineLog(_ kernel: String, _ options: Serve) -> ((String) -> Void)? {
    guard options.logLevel <= .info else { return nil }
    let log = Logger(label: kernel)
    return { log.info("\($0)") }
  }

  /// Makes the server that the options ask for. `auto` takes CUSE if it works, otherwise FUSE, and logs the reason.
  private static func makeServer(
    _ options: Serve, _ node: FilePath, _ device: InspectedDevice,
    notice: (String) -> Void
  ) throws(NodeError) -> (any NodeServer, Backend) {
    let access = NodeAccess(
      mode: options.access.mode, owner: options.access.owner, group: options.access.group)
    // An earlier daemon, ended by SIGKILL, may have served the node by FUSE.
    try FUSEServer.removeStale(at: node, of: application)
    func cuse() throws(NodeError) -> (any NodeServer, Backend) {
      let name = node.lastComponent?.string ?? ""
      let server = try CUSEServer(
        name: name, access: access, application: application, device: device)
      return (server, .cuse)
    }
    func fuse() throws(NodeError) -> (any NodeServer, Backend) {
      let server = try FUSEServer(
        path: node, access: access, application: application, device: device)
      return (server, .fuse)
    }

    switch options.backend {
    case .cuse: return try cuse()
    case .fuse: return try fuse()
    case .auto where options.node.path != nil:
      notice("backend fuse: --path asks for a file")
      return try fuse()
    case .auto:
      do throws(NodeError) {
        let server = try cuse()
        notice("backend cuse: this machine has it")
        return server
      } catch {
        // An existing file at the node also prevents FUSE.
        guard error.kind != .exists else { throw error }
        notice("backend fuse: \(error.problem)")
        return try fuse()
      }
    }
  }

  /// Makes the tree at the path that the options name, or at the usual path. Without the option, a failure is only
  /// logged, and the node is served without a tree.
  private func makeTree(number: Int?) throws -> FileTreeServer? {
    switch options.inspection.tree {
    case .some(.none): return nil
    case .directory(let directory):
      let path = number == nil ? directory : directory.appending(node.lastComponent!)
      return try mountTree(
        at: path.inResolvedDirectory(
          advice: "choose a tree in a directory that exists: --tree DIR"))
    case nil:
      guard let path = usualTree else { return nil }
      do throws(NodeError) {
        // The directory of an earlier tree may be left: a keeper can be killed between umount and rmdir.
        if lock.left?.tree == path { rmdir(path.string) }
        // An existing directory belongs to another program, even if it is empty.
        return try mountTree(at: path, mayExist: false)
      } catch {
        log.notice("no inspection tree: \(error)")
        return nil
      }
    }
  }

  /// The default path: in /run for root, otherwise in $XDG_RUNTIME_DIR; nil if the user has no such directory.
  private var usualTree: FilePath? { Self.usualTree(of: node) }

  /// The default path of the tree of a node.
  static func usualTree(of node: FilePath) -> FilePath? {
    let directory =
      geteuid() == 0
      ? FilePath("/run") : getenv("XDG_RUNTIME_DIR").map { FilePath(platformString: $0) }
    return directory?.appending(node.lastComponent!)
  }

  private func mountTree(
    at path: FilePath, mayExist: Bool = true
  ) throws(NodeError) -> FileTreeServer {
    try FileTreeServer.removeStale(at: path, of: Self.application)
    guard mayExist || access(path.string, F_OK) != 0 else {
      throw NodeError(.exists, "\(path) exists", advice: "choose a place: --tree DIR")
    }
    return try FileTreeServer(
      device.tree, at: path,
      access: NodeAccess(
        mode: options.inspection.treeMode, owner: options.access.owner,
        group: options.access.group),
      application: Self.application)
  }
}

extension FilePath {
  /// The path with the number at its end.
  fileprivate func numbered(_ number: Int?) -> FilePath {
    guard let number, let last = lastComponent else { return self }
    return removingLastComponent().appending("\(last.string)\(number)")
  }
}

extension VirtualMachine.Configuration {
  /// A description of the machine for people.
  var summary: String {
    "\(cpu.rawValue) \(backing.rawValue) \(memorySize >> 20)M \(granule) pages \(ipaBits)-bit IPA"
      + (kernel == .standard ? "" : " Linux \(kernel.rawValue)")
  }
}
