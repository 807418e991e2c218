import Foundation
import Glibc
import SystemPackage
import Testing

@testable import CharacterDeviceServer

/// The parts of ``SeccompServer`` without a command: paths, pipes, rights, and the requests to a device.
@Suite struct SupervisionTests {
  /// A device that keeps one byte, and refuses zeros.
  private final class Byte: SimpleDevice {
    var value: UInt8 = 0
    var released = 0

    func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) { buffer.append(value) }

    func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
      guard bytes[0] != 0 else { throw .notPermitted }
      value = bytes[0]
      return 1
    }

    func release(_ file: OpenFile<Void>) { released += 1 }
  }

  private let own = CallerProcess(thread: getpid())
  private let caller = Caller(pid: getpid(), uid: getuid(), gid: getgid())

  private func withDirectory(_ body: (String) throws -> Void) throws {
    let path = NSTemporaryDirectory() + "supervision-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: path) }
    try body(path)
  }

  private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

  // MARK: - Requests

  @Test func deviceGetsRequests() throws {
    let device = Byte()
    let connection = try DeviceConnection(device)
    var handle: UInt64?
    connection.open(caller, flags: O_RDWR) {
      handle = try? $0.get().loadUnaligned(as: UInt64.self)
      return true
    }
    let file = try #require(handle)
    var written: Result<UInt32, Errno>?
    connection.write(caller, file, bytes: [0x41, 0x42], at: 0, flags: O_RDWR) {
      written = $0.map { $0.loadUnaligned(as: UInt32.self) }
      return true
    }
    #expect(written == .success(1))
    var read: [UInt8]?
    connection.read(caller, file, count: 10, at: 5, flags: O_RDWR) {
      read = try? Array($0.get())
      return true
    }
    #expect(read == [0x41])
    connection.write(caller, file, bytes: [0], at: 0, flags: O_RDWR) {
      written = $0.map { $0.loadUnaligned(as: UInt32.self) }
      return true
    }
    #expect(written == .failure(.notPermitted))
    var end: Result<Int, Errno>?
    connection.seekToEnd(caller, file) {
      end = $0
      return true
    }
    #expect(end == .failure(.illegalSeek))
    connection.release(file, flags: O_RDWR)
    #expect(device.released == 1)
  }

  /// A request that a receiver makes does not disturb the one that is being handled.
  @Test func requestInsideOfAnAnswer() throws {
    let device = Byte()
    let connection = try DeviceConnection(device)
    var handle: UInt64 = 0
    connection.open(caller, flags: O_RDWR) {
      handle = (try? $0.get().loadUnaligned(as: UInt64.self)) ?? 0
      return true
    }
    var read: [UInt8] = []
    connection.write(caller, handle, bytes: [7], at: 0, flags: O_RDWR) { [caller] _ in
      connection.write(caller, handle, bytes: [8], at: 0, flags: O_RDWR) { _ in
        connection.read(caller, handle, count: 1, at: 0, flags: O_RDWR) {
          read = (try? Array($0.get())) ?? []
          return true
        }
        return true
      }
      return true
    }
    #expect(read == [8])
    connection.release(handle, flags: O_RDWR)
  }

  /// An open whose descriptor does not reach the process is released.
  @Test func openThatIsNotDelivered() throws {
    let device = Byte()
    let connection = try DeviceConnection(device)
    connection.open(caller, flags: O_RDWR) { _ in false }
    #expect(device.released == 1)
  }

  /// A device that answers nothing.
  private final class Silent: CharacterDevice {
    let waiting = WaitQueue<ReadRequest>()
    var released = 0

    func read(_ request: consuming ReadRequest, _ file: OpenFile<Void>) { waiting.append(request) }

    func release(_ file: OpenFile<Void>) { released += 1 }
  }

  /// A signal takes a request from the queue. A device can answer a request when the connection is gone.
  @Test func requestsThatWait() throws {
    let device = Silent()
    var connection: DeviceConnection? = try DeviceConnection(device)
    var handle: UInt64 = 0
    connection?.open(caller, flags: O_RDONLY) {
      handle = (try? $0.get().loadUnaligned(as: UInt64.self)) ?? 0
      return true
    }
    var results: [Errno] = []
    for _ in 0..<2 {
      let number = connection?.read(caller, handle, count: 1, at: 0, flags: O_RDONLY) {
        if case .failure(let error) = $0 { results.append(error) }
        return true
      }
      #expect(connection?.isOpen(number ?? 0) == true)
      if results.isEmpty { connection?.interrupt(number ?? 0) }
    }
    #expect(results == [.interrupted])
    connection = nil
    #expect(device.released == 1)
    #expect(device.waiting.isEmpty)
    #expect(results == [.interrupted])
  }

  // MARK: - Pipes

  private func events(of descriptor: Int32) -> Int16 {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN | POLLOUT), revents: 0)
    poll(&entry, 1, 0)
    return entry.revents
  }

  @Test(arguments: [O_RDONLY, O_WRONLY, O_RDWR])
  func pipeIsReadyAsTheDeviceIs(flags: Int32) throws {
    let file = try NodeFile(flags: flags, handle: 0, isStream: false, caller: caller)
    let client = try #require(file.clientEnd).descriptor.rawValue
    #expect(own.pipe(client) == file.pipe)
    #expect(fcntl(client, F_GETFL) & O_ACCMODE == flags)
    let (toRead, toWrite) = (Int16(POLLIN), Int16(POLLOUT))
    let visible: Int16 = flags == O_RDONLY ? toRead : flags == O_WRONLY ? toWrite : toRead | toWrite
    #expect(events(of: client) == (toRead | toWrite) & visible)
    let states: [(Bool, Bool, Int16)] = [
      (true, false, toRead), (false, true, toWrite), (true, true, toRead | toWrite),
      (false, true, toWrite), (true, false, toRead), (true, true, toRead | toWrite),
    ]
    for (isReadable, isWritable, expected) in states {
      file.setReadiness(toRead: isReadable, toWrite: isWritable)
      #expect(events(of: client) == expected & visible)
    }
    // The server's end tells that the last descriptor was closed.
    let own = file.ownEnd.descriptor.rawValue
    #expect(events(of: own) & Int16(POLLERR | POLLHUP) == 0)
    let copy = dup(client)
    file.clientHasEnd()
    #expect(events(of: own) & Int16(POLLERR | POLLHUP) == 0)
    close(copy)
    #expect(events(of: own) & Int16(POLLERR | POLLHUP) != 0)
  }

  @Test func textsOfLinksToPipes() {
    #expect(CallerProcess.pipe(bytes("pipe:[4711]")) == 4711)
    for text in [
      "pipe:[]x", "pipe:[47", "socket:[1]", "pipe:[1a]", "pipe:[99999999999999999999999]", "",
    ] {
      #expect(CallerProcess.pipe(bytes(text)) == nil, "\(text)")
    }
  }

  // MARK: - Paths

  private func leads(_ path: String, to node: NodePath, follows: Bool = true) -> Bool {
    if case .node = node.target(of: bytes(path), in: AT_FDCWD, of: own, follows: follows) {
      return true
    }
    return false
  }

  @Test func pathsToTheNode() throws {
    try withDirectory { directory in
      let node = try NodePath(FilePath("\(directory)/node"))
      for (link, target) in [
        ("link", "\(directory)/node"), ("relative", "node"), ("chain", "link"), ("here", "."),
        ("other", "/dev/null"), ("loop", "loop"),
      ] {
        try FileManager.default.createSymbolicLink(
          atPath: "\(directory)/\(link)", withDestinationPath: target)
      }
      for path in [
        "node", "./node", "/node", "here/node", "link", "relative", "chain", "here/here/chain",
        "../\(FilePath(directory).lastComponent!)/node",
      ] {
        #expect(leads("\(directory)/\(path)", to: node), "\(path)")
      }
      for path in ["other", "loop", "nodes", "node2", "missing/node", "", "."] {
        #expect(!leads("\(directory)/\(path)", to: node), "\(path)")
      }
      #expect(!leads("/node", to: node))
      #expect(!leads("\(directory)/link", to: node, follows: false))
      #expect(leads("\(directory)/node", to: node, follows: false))
      guard
        case .belowNode? = node.target(
          of: bytes("\(directory)/node/"), in: AT_FDCWD, of: own, follows: true)
      else {
        Issue.record("a slash after the node is not seen")
        return
      }
      let descriptor = open(directory, O_RDONLY)
      defer { close(descriptor) }
      guard case .node? = node.target(of: bytes("node"), in: descriptor, of: own, follows: true)
      else {
        Issue.record("the path relative to a descriptor does not lead to the node")
        return
      }
    }
  }

  @Test func pathsToAnOpenFile() throws {
    let node = try NodePath("/dev/some_node")
    let file = try NodeFile(flags: O_RDWR, handle: 0, isStream: false, caller: caller)
    let descriptor = try #require(file.clientEnd).descriptor.rawValue
    for path in [
      "/proc/self/fd/\(descriptor)", "/dev/fd/\(descriptor)", "/proc/\(getpid())/fd/\(descriptor)",
    ] {
      guard
        case .file(let pipe)? = node.target(of: bytes(path), in: AT_FDCWD, of: own, follows: true)
      else {
        Issue.record("\(path) does not lead to the file")
        continue
      }
      #expect(pipe == file.pipe)
    }
  }

  // MARK: - Memory and rights

  @Test func memoryOfAProcess() throws {
    let text = strdup("/some/path")!
    defer { free(text) }
    let address = UInt64(UInt(bitPattern: text))
    #expect(own.path(at: address) == bytes("/some/path"))
    #expect(own.bytes(at: address, count: 5) == bytes("/some"))
    #expect(own.bytes(at: 8, count: 1) == nil)
    #expect(own.path(at: 8) == nil)
    #expect(own.setBytes(at: address, bytes("/SOME")))
    #expect(String(cString: text) == "/SOME/path")
    #expect(!own.setBytes(at: 8, [1]))
    #expect(own.path(at: .max) == nil)
    // The path has no end.
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let memory = mmap(nil, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
    defer { munmap(memory, 4 * page) }
    memset(memory, 0x78, 4 * page)
    #expect(own.path(at: UInt64(UInt(bitPattern: memory))) == nil)
    #expect(
      own.bytes(at: UInt64(UInt(bitPattern: memory)) + 10, count: 3 * page)?.count == 3 * page)
  }

  @Test func modeDecides() throws {
    let rights = try #require(own.rights)
    #expect(rights.user == geteuid() && rights.group == getegid())
    var attributes = NodeAttributes(NodeAccess(mode: [.ownerRead]), on: 5)
    #expect(attributes.status.st_mode == S_IFCHR | 0o400)
    #expect(attributes.allows(4, rights))
    #expect(attributes.allows(2, rights) == (geteuid() == 0))
    #expect(!attributes.allows(1, rights))
    try attributes.setMode(0o640, rights)
    #expect(attributes.status.st_mode == S_IFCHR | 0o640)
    try attributes.setTimes(
      (timespec(tv_sec: 1, tv_nsec: 2), timespec(tv_sec: 3, tv_nsec: 4)), rights)
    #expect(attributes.status.st_atim.tv_sec == 1 && attributes.status.st_mtim.tv_nsec == 4)
    #expect(throws: Errno.invalidArgument) {
      try attributes.setTimes(
        (timespec(tv_sec: 1, tv_nsec: -1), timespec(tv_sec: 3, tv_nsec: 4)), rights)
    }
  }

  @Test func filterHasTheCalls() throws {
    let filter = try CallFilter()
    #expect(filter.program.count % 8 == 0 && filter.program.count > 100)
    #expect(filter.call(-1) == nil)
    #expect(filter.call(100_000) == nil)
    var found: Set<SupervisedCall> = []
    for number in Int32(0)..<600 {
      if let entry = filter.call(number) { found.insert(entry.call) }
    }
    #expect(found.isSuperset(of: [.openat, .read, .write, .statx, .ioctl, .ioSubmit]))
  }
}
