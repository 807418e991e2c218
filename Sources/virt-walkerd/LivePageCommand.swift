import ArgumentParser
import CharacterDeviceServer
import Glibc
import Stage2Sim
import SystemPackage

/// `virt-walkerd page`: opens the files of a tree and a port, and becomes the program `virt-walker-page`, which serves the page and has
/// nothing else than these descriptors.
struct LivePageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "page",
    abstract: "Serve a page with a running machine to browsers on this computer.",
    discussion: """
      The content comes from the files walk, trace_pipe and guest/dmesg_pipe of the inspection tree. The command prints the address of the \
      page. If the caller may write the file control, it prints a second address, whose page has buttons that control the machine. Each address \
      has a secret part: give it only to people who may see or control the machine. The command runs until a signal ends it, or until the \
      daemon ends.

      The program virt-walker-page serves the page. It has the open files and the port, and no other \
      rights. Root gives up its rights first.

      Exit status: 64 wrong usage; 66 the tree cannot be read; 69 no daemon serves the node, the node has no tree, the port is in use, or the daemon has \
      ended; 71 a system error; 77 not permitted.
      """)

  @OptionGroup var place: RunningTreeOptions

  @Option(
    help: ArgumentHelp(
      "The IPv4 address and the port of the page. Port 0 is any free port. Other addresses than those of this computer (127.0.0.0/8) need --public. (default: 127.0.0.1:8642)",
      valueName: "address:port"),
    transform: ListenAddress.init)
  var listen: ListenAddress?

  private var address: ListenAddress { listen ?? .standard }

  @Flag(
    help: """
      Allow an address that other computers can reach. The page is not encrypted: each computer on the way can read it, and can take its \
      secret.
      """)
  var `public` = false

  func validate() throws {
    guard address.isLoopback || `public` else {
      throw ValidationError(
        "--listen \(address): other computers can reach this address: give 127.0.0.1:\(address.port), or also --public"
      )
    }
  }

  func run() throws {
    try reportingFailures {
      let running = try place.find()
      guard case .directory(let tree) = running.place else {
        throw Failure(
          "the page needs the files of a tree, and \(running.subject) has only a socket: virt-walkerd exec --tree DIR",
          status: .unavailable)
      }
      let program = try Self.program()
      let inherited: FileDescriptor.OpenOptions = [.nonBlocking]
      let walk = try tree.openTreeFile("walk", options: inherited)
      let trace = try tree.openTreeFile("trace_pipe", options: inherited)
      let guestLog = try tree.openTreeFile("guest/dmesg_pipe", options: inherited)
      let control = try? FileDescriptor.open(tree.appending("control"), .readWrite, options: [])
      let reset = try? FileDescriptor.open(tree.appending("reset"), .writeOnly, options: [])
      let listener = try address.openSocket()
      if let user = UserOptions.usual {
        try Sandbox.becomeForProgram(user, advice: "run the command as another user")
      }
      var arguments = [
        program, "--listener", "\(listener.rawValue)", "--walk", "\(walk.rawValue)", "--trace",
        "\(trace.rawValue)", "--guest-log", "\(guestLog.rawValue)", "--title",
        running.subject, "--machine",
        running.machine ?? "the CPU is not known: the page takes it for a cortex-a72",
      ]
      if let control { arguments += ["--control", "\(control.rawValue)"] }
      if let reset { arguments += ["--reset", "\(reset.rawValue)"] }
      try Self.execute(arguments)
    }
  }

  /// The path of the program, which is beside this one, or where the Debian package has it.
  private static func program() throws -> String {
    guard let own = realpath("/proc/self/exe", nil) else {
      throw Failure(
        "cannot find the own program: \(Errno(rawValue: errno)): mount /proc", status: .systemError)
    }
    defer { free(own) }
    let directory = FilePath(platformString: own).removingLastComponent()
    let name = "virt-walker-page"
    let programs = [
      directory.appending(name),
      directory.removingLastComponent().appending("lib/virt-walker").appending(name),
    ]
    guard let program = programs.first(where: { access($0.string, X_OK) == 0 }) else {
      throw Failure(
        "cannot find the program \(programs[0]): build it by scripts/build-static \(name), and copy it there, or install the package virt-walker",
        status: .unavailable)
    }
    return program.string
  }

  private static func execute(_ arguments: [String]) throws {
    var pointers = arguments.map { strdup($0) }
    pointers.append(nil)
    execv(arguments[0], pointers)
    throw Failure(
      "cannot execute \(arguments[0]): \(Errno(rawValue: errno)): install virt-walker again",
      status: .systemError)
  }
}

/// An IPv4 address and a port.
struct ListenAddress: CustomStringConvertible {
  private let address: in_addr
  let port: UInt16

  /// 127.0.0.1:8642
  static let standard = ListenAddress(
    address: in_addr(s_addr: UInt32(0x7f00_0001).bigEndian), port: 8642)

  private init(address: in_addr, port: UInt16) {
    self.address = address
    self.port = port
  }

  /// Reads `127.0.0.1:8642`.
  init(_ text: String) throws {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    var address = in_addr()
    guard parts.count == 2, inet_pton(AF_INET, String(parts[0]), &address) == 1,
      parts[1].allSatisfy({ $0.isASCII && $0.isNumber }), let port = UInt16(parts[1])
    else {
      throw ValidationError("'\(text)' is not an address: write it as 127.0.0.1:8642")
    }
    self.address = address
    self.port = port
  }

  var isLoopback: Bool { UInt32(bigEndian: address.s_addr) >> 24 == 127 }

  var description: String {
    let bytes = [24, 16, 8, 0].map { UInt32(bigEndian: address.s_addr) >> $0 & 0xff }
    return bytes.map { "\($0)" }.joined(separator: ".") + ":\(port)"
  }

  /// A socket that listens at the address. The program that is executed next inherits it.
  func openSocket() throws -> FileDescriptor {
    func failure(_ errno: Errno) -> Failure {
      Failure(
        "cannot listen at \(self): \(errno): give another address with --listen, such as 127.0.0.1:0",
        status: errno == .permissionDenied ? .noPermission : .unavailable)
    }
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { throw failure(Errno(rawValue: errno)) }
    var yes: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
    var name = sockaddr_in()
    name.sin_family = sa_family_t(AF_INET)
    name.sin_addr = address
    name.sin_port = port.bigEndian
    let result = withUnsafePointer(to: name) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result == 0, Glibc.listen(descriptor, 32) == 0 else {
      throw failure(Errno(rawValue: errno))
    }
    return FileDescriptor(rawValue: descriptor)
  }
}
