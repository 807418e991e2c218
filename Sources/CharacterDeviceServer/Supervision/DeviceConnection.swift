import CFuse
import CLinux
import Glibc
import Synchronization
import SystemPackage

/// The kernel's end of FUSE in this process: it makes the requests for a device that otherwise the kernel makes, and gets libfuse's answers.
///
/// So a device, its waiting requests and its answers are the same as behind a FUSE node. The messages are those of linux/fuse.h, version 7.31.
/// All methods are called on one thread. Answers come from any thread.
final class DeviceConnection {
  /// The answer to a request: the bytes after libfuse's header, or an error.
  typealias Answer = Result<UnsafeRawBufferPointer, Errno>

  /// Takes an answer, and returns whether the client has got it.
  typealias Receiver = (Answer) -> Bool

  /// The number of a request.
  typealias Number = UInt64

  /// The longest read or write.
  static let longestTransfer = 1 << 20

  let context: DeviceContext
  private let session: FuseSession
  private var receivers: [Number: Receiver] = [:]
  private var lastNumber: Number = 0
  private let buffer = UnsafeMutableRawPointer.allocate(
    byteCount: DeviceConnection.longestTransfer + 4096, alignment: 8)
  /// Libfuse is handling a request, whose bytes are in ``buffer``.
  private var isDelivering = false
  private var deferred: [() -> Void] = []
  private let thread = pthread_self()
  /// The answers of other threads.
  private let lateAnswers = Mutex<[[UInt8]]>([])
  /// Readable when another thread has given an answer: ``takeLateAnswers()``.
  let lateAnswersDescriptor: FileDescriptor
  /// Called when the device says that a file has new events for poll(2).
  var onPollNews: ((UInt64) -> Void)?

  init(_ device: some CharacterDevice) throws(NodeError) {
    try LibFuse.checkVersion()
    let context = DeviceContext(device, hasOffsets: true)
    self.context = context
    let events = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
    lateAnswersDescriptor = FileDescriptor(rawValue: events)
    var operations = Self.operations
    let created = withFuseArguments(options: []) {
      cfuse_session_new(
        $0, &operations, MemoryLayout<fuse_lowlevel_ops>.size, context.userData)
    }
    guard let created, events >= 0 else {
      throw NodeError(
        .system, "libfuse refused to make a session", advice: "see the messages of libfuse above")
    }
    var io = fuse_custom_io()
    io.read = { _, _, _, _ in -1 }
    io.writev = { _, vectors, count, userData in
      let parts = UnsafeBufferPointer(start: vectors, count: Int(count))
      guard let userData, DeviceContext.of(userData: userData).onAnswer?(parts) == true else {
        // For libfuse, this is a call that a signal has ended. It logs all other errors.
        errno = ENOENT
        return -1
      }
      return parts.reduce(0) { $0 + $1.iov_len }
    }
    session = try FuseSession(created, context: context, io: io)
    context.onAnswer = { [unowned self] in receive($0) }
    initialize()
  }

  deinit {
    disconnect()
    buffer.deallocate()
    try? lateAnswersDescriptor.close()
  }

  /// Ends the connection: the device's requests are abandoned, and its open files are released. A second call does nothing.
  func disconnect() {
    session.disconnect()
    // A device can answer a request after the end of this object.
    context.onAnswer = nil
  }

  private static var operations: fuse_lowlevel_ops {
    var operations = fuse_lowlevel_ops()
    operations.open = { request, _, info in DeviceContext.of(request).open(request, info) }
    operations.release = { request, _, info in DeviceContext.of(request).release(request, info) }
    operations.read = { request, _, count, offset, info in
      DeviceContext.with(request) { $0.read(request, count, at: offset, info) }
    }
    operations.write = { request, _, bytes, count, offset, info in
      DeviceContext.with(request) { $0.write(request, bytes, count, at: offset, info) }
    }
    operations.getattr = { request, _, info in
      DeviceContext.of(request).seek(request, 0, from: .end, info)
    }
    operations.lseek = { request, _, offset, whence, info in
      DeviceContext.of(request).seek(
        request, offset, from: whence == CLINUX_SEEK_DATA ? .data : .hole, info)
    }
    operations.ioctl = {
      request, _, command, argument, info, flags, input, inputCount, outputCount in
      DeviceContext.of(request).ioctl(
        request, command, argument, info, flags, input, inputCount, outputCount)
    }
    operations.poll = { request, _, info, handle in
      DeviceContext.of(request).poll(request, info, handle)
    }
    operations.fsync = { request, _, dataOnly, info in
      DeviceContext.of(request).fsync(request, dataOnly != 0, info)
    }
    return operations
  }

  // MARK: - Requests

  /// The kinds of requests, with their numbers in linux/fuse.h.
  private enum Opcode: UInt32 {
    case getattr = 3
    case open = 14
    case read = 15
    case write = 16
    case release = 18
    case fsync = 20
    case initialize = 26
    case interrupt = 36
    case ioctl = 39
    case poll = 40
    case lseek = 46
  }

  private func initialize() {
    let (major, minor, readAhead, flags) = (UInt32(7), UInt32(31), UInt32(0), UInt32(0))
    send(.initialize) {
      for field in [major, minor, readAhead, flags] { $0.append(field) }
    } then: { _ in
      true
    }
  }

  /// - Returns: The number of the request, which may be answered already.
  @discardableResult
  func open(_ caller: Caller, flags: Int32, then receive: @escaping Receiver) -> Number {
    send(.open, from: caller) {
      $0.append(flags)
      $0.append(UInt32(0))
    } then: {
      receive($0)
    }
  }

  func release(_ handle: UInt64, flags: Int32) {
    send(.release) {
      $0.append(handle)
      $0.append(flags)
      $0.append(UInt32(0))
      $0.append(UInt64(0))
    } then: { _ in
      true
    }
  }

  @discardableResult
  func read(
    _ caller: Caller, _ handle: UInt64, count: Int, at offset: Int, flags: Int32,
    then receive: @escaping Receiver
  ) -> Number {
    send(.read, from: caller) {
      $0.appendTransfer(handle, count: count, at: offset, flags: flags)
    } then: {
      receive($0)
    }
  }

  @discardableResult
  func write(
    _ caller: Caller, _ handle: UInt64, bytes: [UInt8], at offset: Int, flags: Int32,
    then receive: @escaping Receiver
  ) -> Number {
    send(.write, from: caller) {
      $0.appendTransfer(handle, count: bytes.count, at: offset, flags: flags)
      $0.append(bytes)
    } then: {
      receive($0)
    }
  }

  @discardableResult
  func ioctl(
    _ caller: Caller, _ handle: UInt64, command: UInt32, argument: UInt64, input: [UInt8],
    outputCount: Int, then receive: @escaping Receiver
  ) -> Number {
    send(.ioctl, from: caller) {
      $0.append(handle)
      $0.append(UInt32(0))
      $0.append(command)
      $0.append(argument)
      $0.append(UInt32(input.count))
      $0.append(UInt32(outputCount))
      $0.append(input)
    } then: {
      receive($0)
    }
  }

  /// Asks for the events of a file, and lets the device tell of news by ``onPollNews``.
  func poll(_ handle: UInt64, key: UInt64, then receive: @escaping Receiver) {
    let scheduleNotification = UInt32(1)
    send(.poll) {
      $0.append(handle)
      $0.append(key)
      $0.append(scheduleNotification)
      $0.append(UInt32(bitPattern: -1) & 0xffff)
    } then: {
      receive($0)
    }
  }

  /// Asks for the end of a file, as a position.
  @discardableResult
  func seekToEnd(
    _ caller: Caller, _ handle: UInt64, then receive: @escaping (Result<Int, Errno>) -> Bool
  ) -> Number {
    let hasHandle = UInt32(1)
    return send(.getattr, from: caller) {
      $0.append(hasHandle)
      $0.append(UInt32(0))
      $0.append(handle)
    } then: { answer in
      // The size is the second field of struct fuse_attr, which is after 16 bytes of struct fuse_attr_out.
      receive(answer.flatMap { Self.integer(in: $0, at: 24) })
    }
  }

  /// Asks for the next data or the next hole of a file.
  @discardableResult
  func seek(
    _ caller: Caller, _ handle: UInt64, offset: Int, whence: Int32,
    then receive: @escaping (Result<Int, Errno>) -> Bool
  ) -> Number {
    send(.lseek, from: caller) {
      $0.append(handle)
      $0.append(UInt64(offset))
      $0.append(whence)
      $0.append(UInt32(0))
    } then: { answer in
      receive(answer.flatMap { Self.integer(in: $0, at: 0) })
    }
  }

  @discardableResult
  func fsync(
    _ caller: Caller, _ handle: UInt64, dataOnly: Bool, then receive: @escaping Receiver
  ) -> Number {
    send(.fsync, from: caller) {
      $0.append(handle)
      $0.append(UInt32(dataOnly ? 1 : 0))
      $0.append(UInt32(0))
    } then: {
      receive($0)
    }
  }

  /// Tells the device that a signal has come for the client of a request.
  func interrupt(_ number: Number) {
    send(.interrupt) { $0.append(number) }
  }

  /// Whether a request has no answer yet.
  func isOpen(_ number: Number) -> Bool { receivers[number] != nil }

  private static func integer(
    in bytes: UnsafeRawBufferPointer, at offset: Int
  ) -> Result<Int, Errno> {
    guard bytes.count >= offset + 8 else { return .failure(.ioError) }
    return .success(Int(bytes.loadUnaligned(fromByteOffset: offset, as: Int64.self)))
  }

  /// Makes a request. A request that a receiver makes is delivered when the present one has been handled.
  @discardableResult
  private func send(
    _ opcode: Opcode, from caller: Caller? = nil,
    _ fill: @escaping (inout RequestWriter) -> Void, then receive: Receiver? = nil
  ) -> Number {
    lastNumber += 2
    let number = lastNumber
    if let receive { receivers[number] = receive }
    guard !isDelivering else {
      deferred.append { [unowned self] in deliver(number, opcode, caller, fill) }
      return number
    }
    deliver(number, opcode, caller, fill)
    while !deferred.isEmpty { deferred.removeFirst()() }
    return number
  }

  private func deliver(
    _ number: Number, _ opcode: Opcode, _ caller: Caller?,
    _ fill: (inout RequestWriter) -> Void
  ) {
    var writer = RequestWriter(to: buffer)
    writer.beginHeader(opcode.rawValue, number, caller)
    fill(&writer)
    let message = writer.finish()
    isDelivering = true
    session.deliver(message)
    isDelivering = false
  }

  // MARK: - Answers

  /// Takes an answer of libfuse.
  ///
  /// - Returns: False if the client does not get the answer.
  private func receive(_ parts: UnsafeBufferPointer<iovec>) -> Bool {
    guard pthread_equal(thread, pthread_self()) != 0 else {
      let bytes = parts.flatMap { UnsafeRawBufferPointer(start: $0.iov_base, count: $0.iov_len) }
      lateAnswers.withLock { $0.append(bytes) }
      eventfd_write(lateAnswersDescriptor.rawValue, 1)
      return true
    }
    // Most answers have a header, and their bytes in one part.
    guard let header = parts.first, parts.count <= 2 else {
      let bytes = parts.flatMap { UnsafeRawBufferPointer(start: $0.iov_base, count: $0.iov_len) }
      return receive(bytes)
    }
    let payload = parts.count == 2 ? parts[1] : iovec(iov_base: nil, iov_len: 0)
    return receive(
      UnsafeRawBufferPointer(start: header.iov_base, count: header.iov_len),
      UnsafeRawBufferPointer(start: payload.iov_base, count: payload.iov_len))
  }

  private func receive(_ bytes: [UInt8]) -> Bool {
    bytes.withUnsafeBytes {
      guard $0.count >= Self.headerSize else { return false }
      return receive(
        UnsafeRawBufferPointer(rebasing: $0[..<Self.headerSize]),
        UnsafeRawBufferPointer(rebasing: $0[Self.headerSize...]))
    }
  }

  /// The size of struct fuse_out_header.
  private static let headerSize = 16

  private func receive(
    _ header: UnsafeRawBufferPointer, _ payload: UnsafeRawBufferPointer
  ) -> Bool {
    guard header.count == Self.headerSize else { return false }
    let error = header.loadUnaligned(fromByteOffset: 4, as: Int32.self)
    let number = header.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    guard number != 0 else {
      let pollNews = Int32(1)
      if error == pollNews, payload.count >= 8 {
        onPollNews?(payload.loadUnaligned(as: UInt64.self))
      }
      return true
    }
    guard let receiver = receivers.removeValue(forKey: number) else { return false }
    return receiver(error == 0 ? .success(payload) : .failure(Errno(rawValue: -error)))
  }

  /// Takes the answers that other threads have given.
  func takeLateAnswers() {
    var count: eventfd_t = 0
    eventfd_read(lateAnswersDescriptor.rawValue, &count)
    let answers = lateAnswers.withLock {
      let answers = $0
      $0 = []
      return answers
    }
    for answer in answers { _ = receive(answer) }
  }
}

/// Writes a request into memory.
private struct RequestWriter {
  private let memory: UnsafeMutableRawPointer
  private var size = 0

  init(to memory: UnsafeMutableRawPointer) { self.memory = memory }

  mutating func append(_ value: some FixedWidthInteger & BitwiseCopyable) {
    memory.storeBytes(of: value, toByteOffset: size, as: type(of: value))
    size += MemoryLayout.size(ofValue: value)
  }

  mutating func append(_ bytes: [UInt8]) {
    guard !bytes.isEmpty else { return }
    bytes.withUnsafeBytes {
      UnsafeMutableRawBufferPointer(start: memory + size, count: $0.count).copyMemory(from: $0)
    }
    size += bytes.count
  }

  /// struct fuse_in_header. The length is set by ``finish()``.
  mutating func beginHeader(_ opcode: UInt32, _ number: UInt64, _ caller: Caller?) {
    append(UInt32(0))
    append(opcode)
    append(number)
    append(UInt64(FUSE_ROOT_ID))
    append(caller?.uid ?? geteuid())
    append(caller?.gid ?? getegid())
    append(UInt32(bitPattern: caller?.pid ?? getpid()))
    append(UInt32(0))
  }

  /// struct fuse_read_in and struct fuse_write_in.
  mutating func appendTransfer(_ handle: UInt64, count: Int, at offset: Int, flags: Int32) {
    append(handle)
    append(UInt64(offset))
    append(UInt32(count))
    append(UInt32(0))
    append(UInt64(1))  // the owner of locks
    append(flags)
    append(UInt32(0))
  }

  mutating func finish() -> UnsafeMutableRawBufferPointer {
    memory.storeBytes(of: UInt32(size), as: UInt32.self)
    return UnsafeMutableRawBufferPointer(start: memory, count: size)
  }
}
