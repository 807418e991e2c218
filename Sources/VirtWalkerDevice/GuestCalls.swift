import CharacterDeviceServer
import Glibc
import Stage2Sim
import SystemPackage

/// The device at the node: the calls of programs, which the guest's driver answers.
extension ModelEngine: SimpleDevice {
  public func open(_ request: consuming OpenRequest<GuestFile>) {
    var file = GuestFile(flags: request.flags)
    var failure: Errno?
    do throws(Errno) { try open(&file) } catch { failure = error }
    let isWakeUp = file.takeWakeUp()
    if let failure { request.fail(failure) } else { request.accept(file) }
    if isWakeUp { wakeUp() }
  }

  public func release(_ file: OpenFile<GuestFile>) {
    // A driver of an earlier boot is gone, and its files with it.
    guard file.handle.boot == boots else { return }
    driver?.release(&file.handle, on: &virtualMachine)
    if file.handle.takeWakeUp() { wakeUp() }
  }

  public func read(_ request: consuming ReadRequest, _ file: OpenFile<GuestFile>) {
    if attempt(request, file, nextCall()).isWakeUp { wakeUp() }
  }

  public func write(
    _ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: OpenFile<GuestFile>
  ) {
    if attempt(request, bytes, file, nextCall()).isWakeUp { wakeUp() }
  }

  public func ioctl(
    _ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: OpenFile<GuestFile>
  ) {
    if attempt(request, input, file, nextCall()).isWakeUp { wakeUp() }
  }

  public func seek(_ request: consuming SeekRequest, _ file: OpenFile<GuestFile>) {
    let own = file.handle.position
    do throws(Errno) {
      try openAnew(&file.handle)
      let position = try llseek(request.offset, from: request.origin, of: &file.handle)
      request.answer(position)
    } catch {
      request.fail(error)
    }
    file.handle.position = own
    if file.handle.takeWakeUp() { wakeUp() }
  }

  public func poll(_ events: PollEvents, _ file: OpenFile<GuestFile>) -> PollEvents? {
    guard (try? openAnew(&file.handle)) != nil else { return .error }
    let events = driver?.poll(&file.handle, on: &virtualMachine)
    if file.handle.takeWakeUp() { wakeUp() }
    if events != nil { pollers.add(file) }
    return events
  }

  public var isStream: Bool { driver?.isStream ?? false }

  public var givesTheSameAgain: Bool { driver?.givesTheSameAgain ?? false }

  /// A read without a node, of a file that does not block.
  public func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) {
    defer { if ownFile.takeWakeUp() { wakeUp() } }
    try openOwnFile()
    _ = try read(into: &buffer, of: &ownFile)
  }

  /// A write without a node, to a file that does not block.
  public func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    defer { if ownFile.takeWakeUp() { wakeUp() } }
    try openOwnFile()
    return try write(bytes, of: &ownFile) ?? 0
  }

  private func nextCall() -> UInt64 {
    calls &+= 1
    return calls
  }
}

// MARK: - Calls without a node

/// The calls of a program in the guest, without a node. No call waits: it fails with `EAGAIN` instead.
extension ModelEngine {
  /// `open(2)`.
  public func openFile(flags: Int32 = O_RDWR) throws(Errno) -> GuestFile {
    var file = GuestFile(flags: flags | O_NONBLOCK)
    defer { if file.takeWakeUp() { wakeUp() } }
    try open(&file)
    return file
  }

  /// `close(2)`.
  public func closeFile(_ file: inout GuestFile) {
    guard file.boot == boots else { return }
    driver?.release(&file, on: &virtualMachine)
    if file.takeWakeUp() { wakeUp() }
  }

  /// `read(2)`.
  ///
  /// - Parameters:
  ///   - count: The number of bytes that the program wants.
  ///   - file: The file.
  ///   - hasBadBuffer: Whether the program has no memory at the address of its buffer.
  /// - Returns: The bytes.
  public func read(
    _ count: Int, from file: inout GuestFile, hasBadBuffer: Bool = false
  ) throws(Errno) -> [UInt8] {
    beginCall(of: &file, hasBadBuffer)
    defer { endCall(of: &file) }
    return try [UInt8](capacity: count) { (buffer) throws(Errno) in
      guard try read(into: &buffer, of: &file) else { throw .resourceTemporarilyUnavailable }
    }
  }

  /// `write(2)`. The parameters are those of ``read(_:from:hasBadBuffer:)``.
  ///
  /// - Returns: The number of bytes that the driver has taken.
  public func write(
    _ bytes: [UInt8], to file: inout GuestFile, hasBadBuffer: Bool = false
  ) throws(Errno) -> Int {
    beginCall(of: &file, hasBadBuffer)
    defer { endCall(of: &file) }
    guard let count = try write(bytes.span, of: &file) else {
      throw .resourceTemporarilyUnavailable
    }
    return count
  }

  private func beginCall(of file: inout GuestFile, _ hasBadBuffer: Bool) {
    file.call = nextCall()
    file.hasBadBuffer = hasBadBuffer
  }

  private func endCall(of file: inout GuestFile) {
    file.hasBadBuffer = false
    if file.takeWakeUp() { wakeUp() }
  }
}

// MARK: - Calls that wait

/// A program's call that waits in the guest's driver.
struct WaitingCall: DeviceRequest, ~Copyable {
  enum Request: ~Copyable {
    case read(ReadRequest)
    case write(WriteRequest)
    case ioctl(IoctlRequest)
  }

  let request: Request
  /// The program's bytes, which the kernel gives only once.
  var bytes: [UInt8] = []
  let file: OpenFile<GuestFile>
  let call: UInt64
  unowned let engine: ModelEngine

  var reference: RequestReference {
    switch request {
    case .read(let request): request.reference
    case .write(let request): request.reference
    case .ioctl(let request): request.reference
    }
  }

  /// Ends the call, as a signal has come: the only reason for which a queue fails a request.
  consuming func fail(_ error: Errno) {
    let (engine, file, call) = (engine, file, call)
    switch consume request {
    case .read(let request): request.fail(error)
    case .write(let request): request.fail(error)
    case .ioctl(let request): request.fail(error)
    }
    engine.interrupted(call, file)
  }
}

extension ModelEngine {
  /// The result of an attempt of a call.
  private struct Attempt {
    /// Whether the program has its answer.
    let isAnswered: Bool
    /// Whether the driver has woken up calls that wait.
    let isWakeUp: Bool
  }

  /// Makes a call of the driver. If the call has to wait, it is kept in ``waiting``.
  private func attempt(
    _ request: consuming ReadRequest, _ file: OpenFile<GuestFile>, _ call: UInt64
  ) -> Attempt {
    let flags = request.flags
    let offset = file.hasOffsets ? request.offset : nil
    var isWakeUp = false
    let kept = request.answerUnlessWaiting { (buffer) throws(Errno) in
      // One access to the handle for the whole call, because Swift checks each of them.
      let result = read(into: &buffer, &file.handle, call, flags: flags, at: offset)
      isWakeUp = result.isWakeUp
      return try result.isDone.get()
    }
    guard let kept else { return Attempt(isAnswered: true, isWakeUp: isWakeUp) }
    waiting.append(WaitingCall(request: .read(kept), file: file, call: call, engine: self))
    return Attempt(isAnswered: false, isWakeUp: isWakeUp)
  }

  private func read(
    into buffer: inout OutputSpan<UInt8>, _ file: inout GuestFile, _ call: UInt64, flags: Int32,
    at offset: Int?
  ) -> (isDone: Result<Bool, Errno>, isWakeUp: Bool) {
    let own = file.begin(call, flags: flags, at: offset)
    let isDone: Result<Bool, Errno>
    var count = 0
    do throws(Errno) {
      let room = buffer.freeCapacity
      try openAnew(&file)
      isDone = .success(try read(into: &buffer, of: &file))
      count = room - buffer.freeCapacity
    } catch {
      isDone = .failure(error)
    }
    file.end(returningTo: own, at: offset, count: count)
    return (isDone, file.takeWakeUp())
  }

  private func attempt(
    _ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: OpenFile<GuestFile>,
    _ call: UInt64
  ) -> Attempt {
    let (taken, isWakeUp) = write(
      bytes, &file.handle, call, flags: request.flags,
      at: file.hasOffsets ? request.offset : nil)
    switch taken {
    case .success(let taken?): request.answer(taken: taken)
    case .success(nil):
      waiting.append(
        WaitingCall(
          request: .write(request), bytes: bytes.withUnsafeBufferPointer { Array($0) }, file: file,
          call: call, engine: self))
      return Attempt(isAnswered: false, isWakeUp: isWakeUp)
    case .failure(let error): request.fail(error)
    }
    return Attempt(isAnswered: true, isWakeUp: isWakeUp)
  }

  private func write(
    _ bytes: Span<UInt8>, _ file: inout GuestFile, _ call: UInt64, flags: Int32, at offset: Int?
  ) -> (taken: Result<Int?, Errno>, isWakeUp: Bool) {
    let own = file.begin(call, flags: flags, at: offset)
    let taken: Result<Int?, Errno>
    var count = 0
    do throws(Errno) {
      try openAnew(&file)
      let bytesTaken = try write(bytes, of: &file)
      count = bytesTaken ?? 0
      taken = .success(bytesTaken)
    } catch {
      taken = .failure(error)
    }
    file.end(returningTo: own, at: offset, count: count)
    return (taken, file.takeWakeUp())
  }

  private func attempt(
    _ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: OpenFile<GuestFile>,
    _ call: UInt64
  ) -> Attempt {
    // The request does not have the present flags, so the flags of the last read or write stay.
    file.handle.call = call
    do throws(Errno) {
      try openAnew(&file.handle)
      var output: [UInt8] = []
      let result = try ioctl(
        request.command, request.argument, input, &output, room: request.outputCount,
        of: &file.handle)
      if let result {
        request.answer(result, output)
      } else {
        waiting.append(
          WaitingCall(
            request: .ioctl(request), bytes: input.withUnsafeBufferPointer { Array($0) },
            file: file, call: call, engine: self))
        return Attempt(isAnswered: false, isWakeUp: file.handle.takeWakeUp())
      }
    } catch {
      request.fail(error)
    }
    return Attempt(isAnswered: true, isWakeUp: file.handle.takeWakeUp())
  }

  /// Makes all calls that wait once more, and wakes the programs that wait for an event. A call that is answered may wake others.
  public func wakeUp() {
    var isWakeUp: Bool
    repeat {
      isWakeUp = false
      pollers.notify()
      let queue = waiting
      waiting = WaitQueue()
      while let call = queue.popFirst() {
        let result = attempt(call)
        if result.isAnswered, result.isWakeUp { isWakeUp = true }
      }
    } while isWakeUp
  }

  private func attempt(_ waiting: consuming WaitingCall) -> Attempt {
    let (bytes, file, call) = (waiting.bytes, waiting.file, waiting.call)
    switch consume waiting.request {
    case .read(let request): return attempt(request, file, call)
    case .write(let request): return attempt(request, bytes.span, file, call)
    case .ioctl(let request): return attempt(request, bytes.span, file, call)
    }
  }

  fileprivate func interrupted(_ call: UInt64, _ file: OpenFile<GuestFile>) {
    guard file.handle.boot == boots else { return }
    file.handle.call = call
    driver?.interrupt(&file.handle, on: &virtualMachine)
    if file.handle.takeWakeUp() { wakeUp() }
  }
}

// MARK: - The operations of the driver

extension ModelEngine {
  private func open(_ file: inout GuestFile) throws(Errno) {
    guard driver != nil else { throw .noSuchAddressOrDevice }
    file.privateData = 0
    do throws(GuestDriverError) {
      try driver?.open(&file, on: &virtualMachine)
    } catch {
      throw errno(error)
    }
    file.boot = boots
  }

  /// Opens the file of a program in the guest, if the machine was made anew since the driver's last open.
  private func openAnew(_ file: inout GuestFile) throws(Errno) {
    if file.boot != boots { try open(&file) }
  }

  /// Opens ``ownFile`` before its first use, and after each reset.
  @inline(__always)
  private func openOwnFile() throws(Errno) {
    if ownFile.boot == nil { try open(&ownFile) }
  }

  /// - Returns: False if the call has to wait.
  private func read(
    into buffer: inout OutputSpan<UInt8>, of file: inout GuestFile
  ) throws(Errno) -> Bool {
    do throws(GuestDriverError) {
      try driver?.read(into: &buffer, &file, on: &virtualMachine)
    } catch {
      if waits(error, file) { return false }
      throw errno(error)
    }
    guestStop = nil
    return true
  }

  /// - Returns: The number of bytes; nil if the call has to wait.
  private func write(
    _ bytes: Span<UInt8>, of file: inout GuestFile
  ) throws(Errno) -> Int? {
    let count: Int?
    do throws(GuestDriverError) {
      count = try driver?.write(bytes, &file, on: &virtualMachine)
    } catch {
      if waits(error, file) { return nil }
      throw errno(error)
    }
    guestStop = nil
    return count
  }

  /// - Returns: The result; nil if the call has to wait.
  private func ioctl(
    _ command: IoctlCommand, _ argument: UInt64, _ input: Span<UInt8>, _ output: inout [UInt8],
    room: Int, of file: inout GuestFile
  ) throws(Errno) -> Int32? {
    var result: Int32?
    do throws(GuestDriverError) {
      output = try [UInt8](capacity: room) { (output) throws(GuestDriverError) in
        result = try driver?.ioctl(
          command, argument, input, into: &output, &file, on: &virtualMachine)
      }
    } catch {
      if waits(error, file) { return nil }
      throw errno(error)
    }
    return result
  }

  private func llseek(
    _ offset: Int, from origin: SeekRequest.Origin, of file: inout GuestFile
  ) throws(Errno) -> Int {
    do throws(GuestDriverError) {
      return try driver?.llseek(offset, from: origin, &file, on: &virtualMachine) ?? 0
    } catch {
      throw errno(error)
    }
  }

  private func waits(_ error: GuestDriverError, _ file: GuestFile) -> Bool {
    error == .wait && !file.isNonBlocking
  }

  /// The error that a program gets: `EIO` if the guest does not run any more.
  private func errno(_ error: GuestDriverError) -> Errno {
    switch error {
    case .errno(let errno): return errno
    case .wait: return .resourceTemporarilyUnavailable
    case .stopped(let reason):
      guestStop = reason
      virtualMachine.reportGuestStopped()
      return .ioError
    }
  }
}
