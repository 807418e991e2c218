import CFuse
import Glibc
import Inspection
import Scenarios
import SystemPackage
import Testing
import VirtWalkerDevice

@testable import CharacterDeviceServer

/// The device around an engine gives the engine each request of the kernel, and the kernel the engine's answer.
@Suite struct ForwardingTests {
  private let device: Device
  private let engine: NotingEngine
  private let kernel: Kernel

  init() throws {
    (device, engine) = try Device.around(NotingEngine.init)
    kernel = try Kernel(device.device)
  }

  /// Opens the device to read and write.
  private func open() throws -> UInt64 {
    defer { engine.requests = [] }
    return try kernel.open(O_RDWR)
  }

  @Test func openAndRelease() throws {
    let file = try kernel.open(O_RDWR | O_NONBLOCK)
    #expect(engine.requests == ["open 4002"])
    #expect(try kernel.request(.release, [file, 0, 0].bytes) == .init(error: 0))
    #expect(engine.requests == ["open 4002", "release 4002"])
  }

  @Test func openThatTheEngineRefuses() throws {
    let answer = try kernel.request(.open, [UInt32(O_WRONLY), 0].bytes)
    #expect(answer == .init(error: EBUSY))
    #expect(engine.requests == ["open 1"])
  }

  @Test(arguments: [(0, [1, 2, 3], 0), (O_NONBLOCK, [], EAGAIN)] as [(Int32, [UInt8], Int32)])
  func read(flags: Int32, bytes: [UInt8], error: Int32) throws {
    let read =
      [try open(), 0].bytes + [UInt32(5), 0].bytes + [UInt64(0)].bytes + [UInt32(flags), 0].bytes
    #expect(try kernel.request(.read, read) == .init(error: error, bytes))
    #expect(engine.requests == ["read 5, flags \(String(flags, radix: 8))"])
  }

  @Test func write() throws {
    let write =
      [try open(), 0].bytes + [UInt32(3), 0].bytes + [UInt64(0)].bytes + [UInt32(0), 0].bytes
    // The engine takes one byte less.
    let taken = [UInt32(2), 0].bytes
    #expect(try kernel.request(.write, write + [7, 8, 9]) == .init(error: 0, taken))
    #expect(engine.requests == ["write [7, 8, 9]"])
  }

  @Test func flush() throws {
    #expect(try kernel.request(.flush, [try open(), 0, 0].bytes) == .init(error: EDQUOT))
    #expect(engine.requests == ["flush"])
  }

  @Test(arguments: [false, true])
  func fsync(dataOnly: Bool) throws {
    let fsync = [try open()].bytes + [dataOnly ? UInt32(1) : 0, 0].bytes
    #expect(try kernel.request(.fsync, fsync) == .init(error: ENOSPC))
    #expect(engine.requests == ["fsync \(dataOnly)"])
  }

  private static let command = IoctlCommand(
    [.toDevice, .fromDevice], type: "w", number: 3, size: 4)

  private func ioctl(
    _ file: UInt64, isUnrestricted: Bool = false, input: [UInt8] = [], outputCount: UInt32 = 0
  ) throws -> Kernel.Answer {
    let flags = isUnrestricted ? UInt32(FUSE_IOCTL_UNRESTRICTED) : 0
    return try kernel.request(
      .ioctl,
      [file].bytes + [flags, Self.command.rawValue].bytes + [UInt64(0x1000)].bytes
        + [UInt32(input.count), outputCount].bytes + input)
  }

  @Test func restrictedIoctl() throws {
    let answer = try ioctl(try open(), input: [1, 2, 3, 4], outputCount: 4)
    #expect(answer == .init(error: 0, [UInt32(5), 0, 0, 0].bytes + [4, 3, 2, 1]))
    #expect(engine.requests == ["ioctl 3, argument 1000, restricted, [1, 2, 3, 4]"])
  }

  /// The answer to the first request asks the kernel for the engine's areas.
  @Test func unrestrictedIoctl() throws {
    let file = try open()
    let areas =
      [UInt32(0), UInt32(FUSE_IOCTL_RETRY), 1, 1].bytes
      + [UInt64(0x1010), 2, 0x1020, 3].bytes
    #expect(try ioctl(file, isUnrestricted: true) == .init(error: 0, areas))
    #expect(engine.requests == ["areas 3, argument 1000"])
    engine.requests = []
    let answer = try ioctl(file, isUnrestricted: true, input: [8, 9], outputCount: 3)
    #expect(answer == .init(error: 0, [UInt32(5), 0, 0, 0].bytes + [9, 8]))
    #expect(engine.requests == ["ioctl 3, argument 1000, unrestricted, [8, 9]"])
  }

  @Test func poll() throws {
    let poll = [try open(), 0].bytes + [UInt32(0), PollEvents.readable.rawValue].bytes
    let events = [PollEvents.priority.rawValue, 0].bytes
    #expect(try kernel.request(.poll, poll) == .init(error: 0, events))
    #expect(engine.requests == ["poll 41"])
  }

  @Test func properties() {
    let device = device.device
    #expect(device.isStream && device.wantsFlush && device.givesTheSameAgain)
    #expect(device.size == 7)
  }
}

/// An engine that notes each request, and gives an answer that no default gives.
private final class NotingEngine: ModelWrapper, CharacterDevice {
  var requests: [String] = []

  let isStream = true
  let wantsFlush = true
  let givesTheSameAgain = true
  let size: Int? = 7

  func open(_ request: consuming OpenRequest<GuestFile>) {
    requests.append("open \(String(request.flags, radix: 8))")
    let file = GuestFile(flags: request.flags)
    if request.isReadable { request.accept(file) } else { request.fail(.resourceBusy) }
  }

  func release(_ file: OpenFile<GuestFile>) {
    requests.append("release \(String(file.flags, radix: 8))")
  }

  func read(_ request: consuming ReadRequest, _ file: OpenFile<GuestFile>) {
    requests.append("read \(request.count), flags \(String(request.flags, radix: 8))")
    if request.isNonBlocking {
      request.fail(.resourceTemporarilyUnavailable)
    } else {
      request.answer([1, 2, 3])
    }
  }

  func write(_ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: OpenFile<GuestFile>) {
    requests.append("write \(bytes.list)")
    request.answer(taken: bytes.count - 1)
  }

  func flush(_ request: consuming SyncRequest, _ file: OpenFile<GuestFile>) {
    requests.append("flush")
    request.fail(Errno(rawValue: EDQUOT))
  }

  func fsync(_ request: consuming SyncRequest, dataOnly: Bool, _ file: OpenFile<GuestFile>) {
    requests.append("fsync \(dataOnly)")
    request.fail(.noSpace)
  }

  func ioctl(_ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: OpenFile<GuestFile>) {
    let kind = request.isUnrestricted ? "unrestricted" : "restricted"
    requests.append(
      "ioctl \(request.command.number), argument \(String(request.argument, radix: 16)), \(kind), \(input.list)"
    )
    request.answer(5, input.list.reversed())
  }

  func ioctlAreas(_ command: IoctlCommand, argument: UInt64) -> IoctlAreas {
    requests.append("areas \(command.number), argument \(String(argument, radix: 16))")
    return IoctlAreas(
      input: [MemoryArea(address: argument + 0x10, count: 2)],
      output: [MemoryArea(address: argument + 0x20, count: 3)])
  }

  func poll(_ events: PollEvents, _ file: OpenFile<GuestFile>) -> PollEvents? {
    requests.append("poll \(String(events.rawValue, radix: 16))")
    return .priority
  }
}

/// The kernel's end of a CUSE connection, with the messages of linux/fuse.h. A socket is in the place of /dev/cuse.
private final class Kernel {
  enum Operation: UInt32 {
    case open = 14
    case read, write
    case release = 18
    case fsync = 20
    case flush = 25
    case ioctl = 39
    case poll
    case initialize = 4096
  }

  struct Answer: Equatable {
    let error: Int32
    let bytes: [UInt8]

    init(error: Int32, _ bytes: [UInt8] = []) {
      self.error = error
      self.bytes = bytes
    }
  }

  private let socket: FileDescriptor
  private let session: FuseSession

  init(_ device: some CharacterDevice) throws {
    var sockets: [Int32] = [-1, -1]
    let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    try #require(socketpair(AF_UNIX, type, 0, &sockets) == 0)
    socket = FileDescriptor(rawValue: sockets[0])
    let context = DeviceContext(device, hasOffsets: false)
    var operations = CUSEServer.operations
    var info = cuse_info()
    let created = withFuseArguments(options: []) {
      ccuse_lowlevel_new($0, &info, &operations, context.userData)
    }
    // Version 7.31 of the protocol.
    try Self.send(.initialize, [7, 31, 0, 0 as UInt32].bytes, to: socket)
    session = try FuseSession(
      try #require(created), context: context, mountPoint: "/dev/fd/\(sockets[1])", what: "a test")
    _ = try answer()
  }

  deinit {
    session.disconnect()
    try? socket.close()
  }

  /// Opens the device, and gives the number of the open file.
  func open(_ flags: Int32) throws -> UInt64 {
    let answer = try request(.open, [UInt32(bitPattern: flags), 0].bytes)
    try #require(answer.error == 0)
    let file = UInt64(in: answer.bytes.span)
    return try #require(file)
  }

  /// Sends a request, lets the server process it, and gives the answer.
  func request(_ operation: Operation, _ body: [UInt8]) throws -> Answer {
    try Self.send(operation, body, to: socket)
    _ = try session.process()
    return try answer()
  }

  private static func send(
    _ operation: Operation, _ body: [UInt8], to socket: FileDescriptor
  ) throws {
    // Node, user, group, process and reserved fields are zero.
    let head =
      [UInt32(40 + body.count), operation.rawValue].bytes
      + [UInt64(operation.rawValue), 0, 0, 0].bytes
    _ = try socket.writeAll(head + body)
  }

  /// The error is `EAGAIN` if there is no answer.
  private func answer() throws -> Answer {
    var bytes = [UInt8](repeating: 0, count: 8192)
    let count = try bytes.withUnsafeMutableBytes { try socket.read(into: $0) }
    let error = Int32(in: bytes.span, at: 4)
    return Answer(error: -(try #require(error)), Array(bytes[..<count].dropFirst(16)))
  }
}

extension Span<UInt8> {
  fileprivate var list: [UInt8] { indices.map { self[$0] } }
}

extension [UInt64] {
  fileprivate var bytes: [UInt8] { flatMap(\.bytesInMemory) }
}

extension [UInt32] {
  fileprivate var bytes: [UInt8] { flatMap(\.bytesInMemory) }
}
