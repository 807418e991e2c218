import Glibc
import SystemPackage

/// A whole program that serves one device until a signal ends it; libfuse's `cuse_lowlevel_main` does the same.
///
///     usage: PROGRAM FILE                                 a FUSE node, which is a file
///            PROGRAM --cuse NAME [--unrestricted-ioctl]   a CUSE node, /dev/NAME
///            PROGRAM --exec FILE COMMAND...               a node for a command: ``SeccompServer``
///
/// It prints "NODE is ready" when the node answers. It ends with status 0 after a signal, 1 after an error, and 64 if its arguments
/// are wrong. With `--exec`, it prints nothing, and its status is that of the command. A program with options of its own makes a server and calls ``NodeServer/serve(until:ready:)``.
public enum DeviceProgram {
  /// Runs the program. Call this in `main` before the program starts a second thread.
  public static func run(_ device: some CharacterDevice, name: String) -> Never {
    if SupervisedCommand.isRequested { SupervisedCommand.run(name) }
    do {
      if CommandLine.arguments.count > 3, CommandLine.arguments[1] == "--exec" {
        exit(try runCommand(device))
      }
      let signals = try TerminationSignals()
      let application = Application(name: name)
      guard let server = try server(device, application) else {
        write(
          "usage: \(name) FILE | \(name) --cuse NAME [--unrestricted-ioctl] | \(name) --exec FILE COMMAND...\n",
          .standardError)
        exit(64)
      }
      try server.serve(until: signals) { write("\(server.path) is ready\n", .standardOutput) }
    } catch {
      write("\(name): \(error)\n", .standardError)
      exit(1)
    }
    exit(0)
  }

  private static func runCommand(_ device: some CharacterDevice) throws -> Int32 {
    let given = SupervisedCommand.Signals()
    let signals = try TerminationSignals(and: [SIGCHLD])
    let arguments = CommandLine.arguments
    let command = try SupervisedCommand(Array(arguments.dropFirst(3)), signals: given)
    let server = try SeccompServer(
      path: FilePath(arguments[2]), command: command, device: device)
    defer { server.close() }
    let loop = try EventLoop()
    try server.serve(command, signals: signals, in: loop)
    command.begin()
    try loop.run()
    return command.waitForExitStatus()
  }

  private static func server(
    _ device: some CharacterDevice, _ application: Application
  ) throws(NodeError) -> (any NodeServer)? {
    var arguments = CommandLine.arguments.dropFirst()
    let isUnrestricted = arguments.last == "--unrestricted-ioctl"
    if isUnrestricted { arguments.removeLast() }
    switch (arguments.count, arguments.first) {
    case (2, "--cuse"):
      return try CUSEServer(
        name: arguments.last ?? "", ioctl: isUnrestricted ? .unrestricted : .restricted,
        application: application, device: device)
    case (1, let file?) where !isUnrestricted && !file.hasPrefix("-"):
      let path = FilePath(file)
      try FUSEServer.removeStale(at: path, of: application)
      return try FUSEServer(path: path, application: application, device: device)
    default: return nil
    }
  }

  private static func write(_ text: String, _ descriptor: FileDescriptor) {
    // A closed terminal does not end the program.
    _ = try? descriptor.writeAll(text.utf8)
  }
}

extension NodeServer {
  /// Serves the node until a signal comes, and removes the node.
  ///
  /// - Parameters:
  ///   - signals: The signals. Make this object before the server, so that no signal leaves the node behind.
  ///   - ready: Called before the loop runs.
  /// - Throws: `ECONNABORTED` if the node was removed from outside, by umount(8) for example; or the error of `ready`.
  public func serve(
    until signals: TerminationSignals, ready: () throws -> Void = {}
  ) throws {
    defer { close() }
    let loop = try EventLoop()
    try loop.add(self) { if $0 == .end { throw Errno.connectionAbort } }
    try loop.add(signals.descriptor) { loop.stop() }
    try ready()
    try loop.run()
  }
}
