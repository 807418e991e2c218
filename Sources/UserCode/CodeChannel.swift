import CLinux
import CUserCode
import Glibc
import SystemPackage

/// The daemon's end of the channel to a process that runs a user's code (Kernel/runtime/channel.h).
///
/// The process can write anything into the memory at any time. Each value is copied once, and the copy is checked.
final class CodeChannel {
  /// Something that comes from the code before its answer.
  enum Event {
    /// A record of the log.
    case record(CodeRecord)
    /// A request: the message, for which the code waits.
    case request(channel_message)
  }

  /// The daemon's answer to a request.
  struct Reply {
    var result: Int64 = 0
    var values: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
  }

  /// The reason why a call has no answer.
  enum Failure: Error {
    /// The code has reported a fault.
    case fault(channel_fault)
    /// The process has ended without a report.
    case ended
    /// The code has not answered in time.
    case hung
    /// The code has sent something that no runtime sends.
    case broken(String)
  }

  /// The time that a call can take, in nanoseconds.
  static let limit: UInt64 = 10_000_000_000
  /// The time between two calls of ``mayGoOn``, in milliseconds.
  private static let slice: Int32 = 5
  /// The time that remains for a call after ``mayGoOn`` has said no, in nanoseconds.
  private static let lastLimit: UInt64 = 1_000_000_000

  /// The number of requests between two looks at the time, and the bytes of the log that take the time of a request.
  private static let mostWork = 64
  private static let bytesOfWork = 512

  /// A function that is called again and again while the daemon waits. If the function returns false, the code has one more second.
  var mayGoOn: (() -> Bool)?
  /// A function that says whether a debugger has stopped the code. The time of a call does not end then.
  var isStopped: () -> Bool = { false }

  private let memory: UnsafeMutablePointer<channel>
  private let code: StartedCode
  private let spins: Int
  private var waits = channel_waits()
  private let log: UnsafeMutableRawBufferPointer

  /// Takes the descriptors of a process: they are closed with the channel.
  init(_ code: StartedCode) throws(CodeFailure) {
    self.code = code
    let size = Int(channel_size())
    guard let address = map(code.memory, size: size) else {
      let error = Errno(rawValue: errno)
      close(code)
      throw CodeFailure(
        "the shared memory of the code's process cannot be used: \(error). This is a defect of virt-walkerd."
      )
    }
    // A process that takes nothing from the socket must not hold up the daemon.
    _ = fcntl(code.socket.rawValue, F_SETFL, O_NONBLOCK)
    memory = address.bindMemory(to: channel.self, capacity: 1)
    log = .allocate(byteCount: Int(CHANNEL_LOG_SIZE), alignment: 8)
    let processors = sysconf(Int32(_SC_NPROCESSORS_ONLN))
    // On one CPU, a process that looks for its turn takes the CPU from the process that has the turn.
    spins = processors >= 2 ? 2000 : 0
    memory.pointee.version = UInt32(CHANNEL_VERSION)
    memory.pointee.spins = UInt32(spins)
  }

  deinit {
    munmap(memory, Int(channel_size()))
    log.deallocate()
    close(code)
  }

  /// The registers of the vCPU that the code has, to be set before a call and copied after it.
  var vcpu: channel_vcpu {
    get { copy(\.vcpu) }
    set { memory.pointee.vcpu = newValue }
  }

  /// The tables that a call tells the code about.
  var geometry: channel_geometry {
    get { copy(\.geometry) }
    set { memory.pointee.geometry = newValue }
  }

  /// Sends a descriptor, which the code takes at its next call.
  func send(_ descriptor: FileDescriptor) throws(Failure) {
    var number = descriptor.rawValue
    guard clinux_send(code.socket.rawValue, "", 1, &number, 1) == 1 else { throw .ended }
  }

  /// Makes a call, and waits for its answer.
  ///
  /// - Parameters:
  ///   - kind: The call.
  ///   - file: The number of the open file.
  ///   - call: The number of the call.
  ///   - arguments: The first four arguments. The others are 0.
  ///   - data: The bytes for the code, at most `CHANNEL_DATA_SIZE`.
  ///   - handler: Takes what comes before the answer. The reply to a record has no meaning.
  /// - Returns: The answer. Its length is at most `CHANNEL_DATA_SIZE`.
  func call(
    _ kind: channel_call, file: UInt64 = 0, call: UInt64 = 0,
    _ arguments: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0),
    data: Span<UInt8> = Span(), _ handler: (Event) -> Reply
  ) throws(Failure) -> channel_message {
    precondition(data.count <= Int(CHANNEL_DATA_SIZE), "there are more bytes than a call can have")
    var message = channel_message()
    message.kind = kind.rawValue
    message.length = UInt32(data.count)
    message.file = file
    message.call = call
    message.arguments = (arguments.0, arguments.1, arguments.2, arguments.3, 0, 0, 0, 0)
    if !data.isEmpty {
      data.withUnsafeBytes {
        channel_data(memory).update(
          from: $0.bindMemory(to: UInt8.self).baseAddress!, count: $0.count)
      }
    }
    memory.pointee.message = message
    var deadline: UInt64?
    var work = 0
    while true {
      giveTurn()
      try waitForTurn(&deadline)
      work += 1 + (try drainLog(handler)) / Self.bytesOfWork
      message = copy(\.message)
      guard message.length <= UInt32(CHANNEL_DATA_SIZE) else {
        throw .broken("a message has \(message.length) bytes of data")
      }
      switch message.kind {
      case CHANNEL_DONE.rawValue, CHANNEL_WAITS.rawValue: return message
      case CHANNEL_FAULT.rawValue: throw .fault(copy(\.fault))
      case CHANNEL_LOG.rawValue: reply(Reply())
      default: reply(handler(.request(message)))
      }
      // A loop of requests does not end, either.
      guard work >= Self.mostWork else { continue }
      work = 0
      try checkTime(&deadline)
    }
  }

  /// Bytes of the data of the message that has come.
  func data(_ count: Int) -> [UInt8] {
    let count = min(count, Int(CHANNEL_DATA_SIZE))
    return [UInt8](unsafeUninitializedCapacity: count) { buffer, initialized in
      if count > 0 { clinux_copy_once(buffer.baseAddress!, channel_data(memory), count) }
      initialized = count
    }
  }

  /// Appends bytes of the data of the message that has come.
  func appendData(_ count: Int, to output: inout OutputSpan<UInt8>) {
    guard let data = channel_data(memory) else { return }
    for index in 0..<min(count, Int(CHANNEL_DATA_SIZE), output.freeCapacity) {
      output.append(data[index])
    }
  }

  private func copy<Value: BitwiseCopyable>(_ part: KeyPath<channel, Value>) -> Value {
    let offset = MemoryLayout<channel>.offset(of: part)!
    return withUnsafeTemporaryAllocation(of: Value.self, capacity: 1) { copy in
      clinux_copy_once(
        copy.baseAddress!, UnsafeRawPointer(memory) + offset, MemoryLayout<Value>.size)
      return copy[0]
    }
  }

  private func reply(_ reply: Reply) {
    var message = channel_message()
    message.kind = CHANNEL_REPLY.rawValue
    message.result = reply.result
    message.arguments.0 = reply.values.0
    message.arguments.1 = reply.values.1
    message.arguments.2 = reply.values.2
    message.arguments.3 = reply.values.3
    memory.pointee.message = message
  }

  // MARK: - Turns

  private func giveTurn() {
    if channel_give_turn(memory, CHANNEL_CODE.rawValue) != 0 {
      clinux_wake(code.socket.rawValue)
    }
  }

  private var hasTurn: Bool { channel_has_turn(memory, CHANNEL_DAEMON.rawValue) != 0 }

  @inline(__always)
  private func waitForTurn(_ deadline: inout UInt64?) throws(Failure) {
    // The daemon's own number, which the code cannot change.
    if channel_spin(memory, CHANNEL_DAEMON.rawValue, UInt32(spins), &waits) != 0 { return }
    try sleepForTurn(&deadline)
  }

  private func sleepForTurn(_ deadline: inout UInt64?) throws(Failure) {
    while true {
      var hasEnded = false
      if channel_begin_sleep(memory, CHANNEL_DAEMON.rawValue) != 0 {
        // The sandbox lets the daemon set no time limit of a socket.
        var descriptor = pollfd(fd: code.socket.rawValue, events: Int16(POLLIN), revents: 0)
        if poll(&descriptor, 1, Self.slice) > 0 {
          let count = clinux_take_bytes(code.socket.rawValue)
          hasEnded = count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)
        }
      }
      channel_end_sleep(memory, CHANNEL_DAEMON.rawValue)
      // The process can have given the turn before its end.
      if hasTurn { return }
      if hasEnded { throw .ended }
      try checkTime(&deadline)
    }
  }

  /// Lets others run, and ends the call if its time is over.
  private func checkTime(_ deadline: inout UInt64?) throws(Failure) {
    let now = clinux_monotonic_nanoseconds()
    guard let end = deadline else {
      deadline = now + Self.limit
      return
    }
    let isWanted = mayGoOn?() ?? true
    guard now < end else {
      guard isWanted, isStopped() else { throw .hung }
      deadline = nil
      return
    }
    let time = clinux_monotonic_nanoseconds()
    // The time of others is not the code's.
    deadline = isWanted ? end + (time - now) : min(end + (time - now), time + Self.lastLimit)
  }

  // MARK: - The log

  /// Takes the records of the log.
  ///
  /// - Returns: The bytes of these records.
  private func drainLog(_ handler: (Event) -> Reply) throws(Failure) -> Int {
    let length = copy(\.log_length)
    guard length > 0 else { return 0 }
    guard length <= UInt32(CHANNEL_LOG_SIZE) else {
      throw .broken("the log has \(length) bytes")
    }
    clinux_copy_once(log.baseAddress!, channel_log(memory), Int(length))
    memory.pointee.log_length = 0
    var rest = UnsafeRawBufferPointer(rebasing: log[..<Int(length)])
    while !rest.isEmpty {
      guard let (record, size) = CodeRecord.parse(rest) else {
        throw .broken("the log has a record that is not one")
      }
      rest = UnsafeRawBufferPointer(rebasing: rest[size...])
      if let record { _ = handler(.record(record)) }
    }
    return Int(length)
  }
}

private func close(_ code: StartedCode) {
  try? code.memory.close()
  try? code.socket.close()
}

/// Maps memory that a process of a user's code has, too. The memory keeps its size from then on, because a smaller one would end the
/// daemon at its next access.
///
/// - Returns: Nil, and `errno` says why, if there are less than `size` bytes, or if the size cannot be kept.
func map(_ descriptor: FileDescriptor, size: Int) -> UnsafeMutableRawPointer? {
  // linux/fcntl.h: F_ADD_SEALS, F_GET_SEALS, F_SEAL_SHRINK
  let (addSeals, getSeals, shrink): (Int32, Int32, Int32) = (1033, 1034, 2)
  let seals = fcntl(descriptor.rawValue, getSeals)
  guard seals >= 0 else { return nil }
  if seals & shrink == 0, fcntl(descriptor.rawValue, addSeals, shrink) != 0 { return nil }
  guard let end = try? descriptor.seek(offset: 0, from: .end), end >= Int64(size) else {
    errno = EINVAL
    return nil
  }
  let address = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.rawValue, 0)
  return address == MAP_FAILED ? nil : address
}
