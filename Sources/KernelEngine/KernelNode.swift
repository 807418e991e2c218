import CLabLink
import CharacterDeviceServer
import Glibc
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

/// The device at the node: the calls of programs, which the agent in the guest makes.
extension KernelEngine: CharacterDevice {
  public func open(_ request: consuming OpenRequest<GuestFile>) {
    guard releasing == 0 else {
      let held = HeldRequest(request) {}
      openings.append { [unowned self] in
        if let request = held.take() { openNow(request) }
      }
      return
    }
    openNow(request)
  }

  private func openNow(_ request: consuming OpenRequest<GuestFile>) {
    var file = GuestFile(flags: request.flags)
    let call = openCall(request.flags, request.caller)
    let boot = boots
    pass(request, call, Array(device.utf8)) { [unowned self] request, answer in
      takePath(answer)
      if let error = answer.error { return request.fail(error) }
      file.privateData = Self.handle(UInt32(truncatingIfNeeded: answer.result), boot)
      request.accept(file)
    }
  }

  private func openCall(_ flags: Int32, _ caller: Caller?) -> lab_call {
    var call = call(LAB_OPEN, caller)
    // These flags have the same numbers on all architectures.
    call.flags = UInt32(
      bitPattern: flags & (O_ACCMODE | O_NONBLOCK | O_APPEND | O_SYNC | O_DSYNC))
    return call
  }

  /// The value of ``GuestFile/privateData`` for a file that the agent has open: the boot, and the agent's handle.
  private static func handle(_ handle: UInt32, _ boot: UInt32) -> UInt {
    UInt(boot) << 32 | UInt(handle)
  }

  /// The agent's handle of a file; nil if the guest was booted since.
  private func handle(of file: OpenFile<GuestFile>) -> UInt32? {
    let data = file.handle.privateData
    return UInt32(data >> 32) == boots ? UInt32(truncatingIfNeeded: data) : nil
  }

  /// Passes a request for an open file on. A file of an earlier guest is opened once more.
  private func pass<Request: DeviceRequest & ~Copyable>(
    _ request: consuming Request, _ file: OpenFile<GuestFile>, _ call: lab_call,
    _ bytes: [UInt8] = [], answer: @escaping (consuming Request, MonitorAnswer) -> Void
  ) {
    var call = call
    if let handle = handle(of: file) {
      call.handle = handle
      return pass(request, call, bytes, answer: answer)
    }
    guard isRunning else {
      events.appendGuestStopped()
      return request.fail(.ioError)
    }
    let open = payload(openCall(file.flags, request.caller), Array(device.utf8))
    let boot = boots
    let held = HeldRequest(request) {}
    send(LAB_CALL, open) { [unowned self] opened in
      guard let request = held.take() else { return }
      if let error = opened.error { return request.fail(error) }
      let handle = UInt32(truncatingIfNeeded: opened.result)
      file.handle.privateData = Self.handle(handle, boot)
      call.handle = handle
      pass(request, call, bytes, answer: answer)
    }
  }

  public func release(_ file: OpenFile<GuestFile>) {
    guard let handle = handle(of: file), isRunning else { return }
    if let wait = pollWaits.removeValue(forKey: handle) { interrupt(wait) }
    var call = call(LAB_RELEASE, nil)
    call.handle = handle
    releasing += 1
    send(LAB_CALL, payload(call)) { [unowned self] _ in
      releasing -= 1
      guard releasing == 0 else { return }
      isReleaseSlow = false
      let waiting = openings
      openings = []
      for open in waiting { open() }
    }
  }

  public func read(_ request: consuming ReadRequest, _ file: OpenFile<GuestFile>) {
    var call = call(LAB_READ, request.caller)
    call.flags = UInt32(bitPattern: request.flags)
    call.offset = Int64(request.offset)
    call.capacity = UInt32(min(request.count, Int(LAB_MOST_DATA)))
    pass(request, file, call) { [unowned self] request, answer in
      takePath(answer)
      if let error = answer.error { request.fail(error) } else { request.answer(answer.data) }
    }
  }

  public func write(
    _ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: OpenFile<GuestFile>
  ) {
    var call = call(LAB_WRITE, request.caller)
    call.flags = UInt32(bitPattern: request.flags)
    call.offset = Int64(request.offset)
    let bytes = bytes.withUnsafeBufferPointer { Array($0.prefix(Int(LAB_MOST_DATA))) }
    pass(request, file, call, bytes) { [unowned self] request, answer in
      takePath(answer)
      if let error = answer.error {
        request.fail(error)
      } else {
        request.answer(taken: Int(min(answer.result, Int64(bytes.count))))
      }
    }
  }

  public func ioctl(
    _ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: OpenFile<GuestFile>
  ) {
    var call = call(LAB_IOCTL, request.caller)
    call.command = request.command.rawValue
    call.argument = request.argument
    call.capacity = UInt32(request.outputCount)
    let bytes = input.withUnsafeBufferPointer { Array($0) }
    pass(request, file, call, bytes) { [unowned self] request, answer in
      takePath(answer)
      if let error = answer.error {
        request.fail(error)
      } else {
        request.answer(Int32(truncatingIfNeeded: answer.result), Array(answer.data))
      }
    }
  }

  public func seek(_ request: consuming SeekRequest, _ file: OpenFile<GuestFile>) {
    var call = call(LAB_LSEEK, request.caller)
    call.offset = Int64(request.offset)
    call.command =
      switch request.origin {
      case .end: UInt32(SEEK_END)
      case .data: 3  // SEEK_DATA
      case .hole: 4  // SEEK_HOLE
      }
    pass(request, file, call) { request, answer in
      if let error = answer.error {
        request.fail(error)
      } else {
        request.answer(Int(answer.result))
      }
    }
  }

  public func fsync(
    _ request: consuming SyncRequest, dataOnly: Bool, _ file: OpenFile<GuestFile>
  ) {
    pass(request, file, call(LAB_FSYNC, request.caller)) { request, answer in
      if let error = answer.error { request.fail(error) } else { request.succeed() }
    }
  }

  public func poll(_ events: PollEvents, _ file: OpenFile<GuestFile>) -> PollEvents? {
    guard isRunning, let handle = handle(of: file) else { return .error }
    var call = call(LAB_POLL, nil)
    call.handle = handle
    call.command = events.rawValue
    guard let answer = request(LAB_CALL, payload(call), limit: Self.requestLimit),
      answer.error == nil
    else { return .error }
    let present = PollEvents(rawValue: UInt32(truncatingIfNeeded: answer.result))
    guard present.isDisjoint(with: events), pollWaits[handle] == nil else { return present }
    call.operation = LAB_POLL_WAIT.rawValue
    pollWaits[handle] = send(LAB_CALL, payload(call)) { [weak self, weak file] _ in
      self?.pollWaits[handle] = nil
      file?.notifyPoll()
    }
    return present
  }
}
