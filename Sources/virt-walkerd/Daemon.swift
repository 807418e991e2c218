import ArgumentParser
import CharacterDeviceServer
import Glibc
import Logging
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

/// The life of a serving process, from its options to its end. What it makes it takes away in reverse order, whether
/// the next step fails or a signal comes.
struct Daemon {
  private let options: Serve
  private let log: Logger

  init(_ options: Serve) throws {
    self.options = options
    try openStandardDescriptors()
    if let logFile = options.logFile { try redirectStandardError(to: logFile) }
    let level = options.logLevel
    LoggingSystem.bootstrap { StandardErrorLog(label: $0, logLevel: level) }
    let log = Logger(label: "virt-walkerd")
    LibFuse.setLog { log.error("\($0)") }
    self.log = log
  }

  func run() throws {
    let signals = try TerminationSignals()
    let node = try options.node.node
    let lock = try NodeLock(node)
    defer { lock.release() }
    let pidFile = try options.pidFile.map(PIDFile.init)
    defer { pidFile?.remove() }

    let driver = try loadDriver()
    let (server, backend) = try makeServer(node, driver)
    defer { server.close() }
    let configuration = options.machine.configuration
    try lock.write(
      RuntimeRecord(
        node: node, backend: backend.rawValue,
        machine:
          "\(configuration.cpu.rawValue) \(configuration.backing.rawValue) \(configuration.memorySize >> 20)M \(configuration.granule) pages \(configuration.ipaBits)-bit IPA"
      ))

    let loop = try EventLoop()
    try loop.add(signals.descriptor) {
      log.notice("\(signals.next()): \(node) goes away")
      loop.stop()
    }
    try loop.add(server.descriptor) {
      guard try server.process() else {
        throw Failure(
          "\(node) was taken away from outside (umount, or an abort of the connection): start again",
          status: .unavailable)
      }
    }
    try announceReady(node, backend)
    try loop.run()
    Notification.send("STOPPING=1")
  }

  /// Boots the machine and loads the driver there, each kernel with its log.
  private func loadDriver() throws -> VirtWalkerDriver {
    var machine = try VirtualMachine.booted(options.machine.configuration)
    let host = Logger(label: "host")
    let guest = Logger(label: "guest")
    // Nobody reads them below this level: then a message is not even made.
    let isWanted = options.logLevel <= .info
    if isWanted { machine.observer = HostLog(log: host) }
    do throws(Errno) {
      let driver = try VirtWalkerDriver(loadedIn: machine)
      driver.guestLog = { message in
        if case .stopped = message {
          guest.error("\(message)")
        } else if isWanted {
          guest.info("\(message)")
        }
      }
      return driver
    } catch {
      throw Failure(
        "the driver cannot map its registers: \(error): this is a defect of virt-walkerd",
        status: .systemError)
    }
  }

  /// The server that the options ask for; for `auto` CUSE if it can, else FUSE, and why.
  private func makeServer(
    _ node: FilePath, _ driver: VirtWalkerDriver
  ) throws(NodeError) -> (any NodeServer, Backend) {
    let access = NodeAccess(
      mode: options.access.mode, owner: options.access.owner, group: options.access.group)
    let fileSystem = "virt_walker"
    // A daemon that was killed may have served the node by the other backend.
    try FUSEServer.removeStale(at: node, fileSystem: fileSystem)
    func cuse() throws(NodeError) -> (any NodeServer, Backend) {
      let name = options.node.deviceName
      return (try CUSEServer(name: name, access: access, device: driver), .cuse)
    }
    func fuse() throws(NodeError) -> (any NodeServer, Backend) {
      let server = try FUSEServer(
        path: node, access: access, fileSystem: fileSystem, device: driver)
      return (server, .fuse)
    }

    switch options.backend {
    case .cuse: return try cuse()
    case .fuse: return try fuse()
    case .auto where options.node.path != nil:
      log.notice("backend fuse: --path asks for a file")
      return try fuse()
    case .auto:
      do throws(NodeError) {
        let server = try cuse()
        log.notice("backend cuse: this machine has it")
        return server
      } catch {
        // What is in the way at the node itself is in FUSE's way, too.
        guard error.kind != .exists else { throw error }
        log.notice("backend fuse: \(error.problem)")
        return try fuse()
      }
    }
  }

  /// Tells whoever waits that the node answers.
  private func announceReady(_ node: FilePath, _ backend: Backend) throws {
    // Whoever started the daemon may have gone already: then nobody reads this, and that is no error.
    _ = try? FileDescriptor.standardOutput.writeAll(
      "\(node) is ready (\(backend.rawValue), pid \(getpid()))\n".utf8)
    Notification.send("READY=1\nSTATUS=serving \(node) by \(backend.rawValue)")
    if let descriptor = options.readyDescriptor {
      try Detached.leaveTerminal(keepingStandardError: options.logFile != nil)
      let ready = FileDescriptor(rawValue: descriptor)
      _ = try ready.closeAfter { try ready.writeAll("\n".utf8) }
    }
  }
}

/// Makes sure that 0, 1 and 2 are open: else the next file takes the number, and what is printed goes there.
private func openStandardDescriptors() throws {
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
  let file = open(path.string, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0o640)
  guard file >= 0 else {
    throw Failure(
      .current, doing: "write the log", at: path, advice: "choose another --log-file")
  }
  dup2(file, STDERR_FILENO)
  close(file)
}

/// What the host's kernel logs, among the log lines of the daemon.
private final class HostLog: MachineObserver {
  private let log: Logger

  init(log: Logger) { self.log = log }

  func observe(_ event: MachineEvent) {
    if case .log(let message) = event { log.info("\(message)") }
  }
}
