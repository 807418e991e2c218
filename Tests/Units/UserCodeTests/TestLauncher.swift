import CLinux
import CUserCode
import CharacterDeviceServer
import Foundation
import Glibc
import SystemPackage
import UserCode

/// A launcher for tests: compiles programs of the directory Code, or others, and starts them without a sandbox.
final class TestLauncher: CodeLauncher {
  /// The names of the programs' sources in the directory Code.
  static let directory = URL(filePath: #filePath).deletingLastPathComponent().appending(
    path: "Code")
  private static let headers = directory.deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Kernel/runtime")

  private var programs: [CodeKind: String] = [:]
  private var kinds: [Int32: CodeKind] = [:]
  private let temporary: URL
  /// The processes that were started and have not ended.
  private(set) var running: Set<Int32> = []
  /// The numbers of processes that were started and of tables that were made.
  private(set) var starts = 0
  private(set) var tables = 0
  /// The number of places that were looked up.
  private(set) var lookups = 0

  /// - Parameters:
  ///   - kinds: The programs to compile.
  ///   - flags: Additional flags of the compiler.
  init(_ kinds: [CodeKind], flags: [String] = []) throws {
    temporary = URL.temporaryDirectory.appending(path: UUID().uuidString)
    try FileManager.default.createDirectory(at: temporary, withIntermediateDirectories: true)
    for kind in kinds {
      let program = temporary.appending(path: kind.rawValue).path
      try Self.run(
        "gcc",
        ["-std=gnu11", "-g", "-O1", "-no-pie", "-fno-omit-frame-pointer", "-I", Self.headers.path]
          + flags + ["-o", program, Self.directory.appending(path: "\(kind.rawValue).c").path])
      programs[kind] = program
    }
  }

  deinit { try? FileManager.default.removeItem(at: temporary) }

  struct Failed: Error { let text: String }

  @discardableResult
  private static func run(_ program: String, _ arguments: [String]) throws -> String {
    // Foundation's Process leaks memory, which the search for leaks would find.
    var ends: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0
    else { throw Failed(text: "socketpair: \(errno)") }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    for descriptor: Int32 in [1, 2] {
      posix_spawn_file_actions_adddup2(&actions, ends[1], descriptor)
    }
    var child = pid_t()
    let result = withArgumentVector([program] + arguments) {
      posix_spawnp(&child, program, &actions, nil, $0, environ)
    }
    close(ends[1])
    defer { close(ends[0]) }
    guard result == 0 else { throw Failed(text: "posix_spawnp: \(result)") }
    var output: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 4096)
    while case let count = Glibc.read(ends[0], &part, part.count), count > 0 {
      output += part[..<count]
    }
    let text = String(decoding: output, as: UTF8.self)
    guard waitForEnd(of: child) == 0 else { throw Failed(text: text) }
    return text
  }

  func start(_ kind: CodeKind) throws(CodeFailure) -> StartedCode {
    guard let program = programs[kind] else { throw CodeFailure("there is no \(kind.rawValue)") }
    starts += 1
    let memory = clinux_make_memory("channel", off_t(channel_size()))
    var sockets: [Int32] = [-1, -1]
    guard memory >= 0,
      socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &sockets) == 0
    else { throw CodeFailure("no memory or socket") }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    let copies = [sockets[1], memory].map { fcntl($0, F_DUPFD_CLOEXEC, 100) }
    posix_spawn_file_actions_adddup2(&actions, copies[0], CHANNEL_SOCKET)
    posix_spawn_file_actions_adddup2(&actions, copies[1], CHANNEL_MEMORY)
    var child = pid_t()
    let result = withArgumentVector([program]) {
      posix_spawn(&child, program, &actions, nil, $0, environ)
    }
    for descriptor in copies + [sockets[1]] { close(descriptor) }
    guard result == 0 else { throw CodeFailure("posix_spawn: \(result)") }
    running.insert(child)
    kinds[child] = kind
    return StartedCode(
      memory: FileDescriptor(rawValue: memory), socket: FileDescriptor(rawValue: sockets[0]),
      process: child)
  }

  func makeTableMemory(size: Int) throws(CodeFailure) -> FileDescriptor {
    tables += 1
    let memory = clinux_make_memory("tables", size)
    guard memory >= 0 else { throw CodeFailure("no memory") }
    return FileDescriptor(rawValue: memory)
  }

  func isStopped(_ process: Int32) -> Bool { false }

  func end(_ process: Int32) -> CodeEnd {
    guard running.remove(process) != nil else { return .exited(-1) }
    // A process that is ending by itself keeps its own status.
    var status: Int32 = 0
    for _ in 0..<50 {
      if waitpid(process, &status, WNOHANG) == process { return Self.end(status) }
      usleep(1000)
    }
    kill(process, SIGKILL)
    return Self.end(waitForEnd(of: process))
  }

  private static func end(_ status: Int32) -> CodeEnd {
    status & 0x7f == 0 ? .exited(status >> 8 & 0xff) : .killed(signal: status & 0x7f)
  }

  func places(of addresses: [UInt64], in process: Int32) -> [[SourcePlace]] {
    // As the builder, the launcher knows nothing of a process that has ended.
    guard running.contains(process), let kind = kinds[process] else {
      return addresses.map { _ in [] }
    }
    lookups += addresses.count
    return addresses.map { address in
      guard let program = programs[kind],
        let text = try? Self.run(
          "addr2line", ["-f", "-e", program, "0x" + String(address, radix: 16)])
      else { return [] }
      let lines = text.split(separator: "\n")
      guard lines.count == 2, let colon = lines[1].lastIndex(of: ":") else { return [] }
      let file = lines[1][..<colon].split(separator: "/").last.map(String.init) ?? ""
      let line = Int(lines[1][colon...].dropFirst().prefix { $0.isNumber }) ?? 0
      return [
        SourcePlace(
          function: String(lines[0]), file: file, line: line, isUsers: file == "\(kind.rawValue).c")
      ]
    }
  }
}
