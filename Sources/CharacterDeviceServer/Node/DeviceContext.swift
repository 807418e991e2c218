import CFuse
import CLinux
import Glibc
import SystemPackage

/// A device without its type, for libfuse's callbacks.
class AnyDevice {
  func open(_ request: RequestReference, _ info: fuse_file_info) {}
  func release(_ file: AnyOpenFile) {}
  func read(_ request: consuming ReadRequest, _ file: AnyOpenFile) {}
  func write(_ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: AnyOpenFile) {}
  func ioctl(_ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: AnyOpenFile) {}
  func ioctlAreas(_ command: IoctlCommand, _ argument: UInt64) -> IoctlAreas { IoctlAreas() }
  func poll(_ events: PollEvents, _ file: AnyOpenFile) -> PollEvents? { nil }
  var isStream: Bool { false }
  var wantsFlush: Bool { false }
  func flush(_ request: consuming SyncRequest, _ file: AnyOpenFile) {}
  func fsync(_ request: consuming SyncRequest, dataOnly: Bool, _ file: AnyOpenFile) {}
  func seek(_ request: consuming SeekRequest, _ file: AnyOpenFile) {}
  var size: Int? { nil }
  var givesTheSameAgain: Bool { false }
}

/// A device of a certain type.
final class TypedDevice<Device: CharacterDevice>: AnyDevice {
  private let device: Device

  init(_ device: Device) { self.device = device }

  /// The file with its type. All files are made by ``open(_:_:)`` of this class, which gives a request of this type.
  private func typed(_ file: AnyOpenFile) -> OpenFile<Device.Handle> {
    unsafeDowncast(file, to: OpenFile<Device.Handle>.self)
  }

  override func open(_ request: RequestReference, _ info: fuse_file_info) {
    device.open(OpenRequest(request, info))
  }

  override func release(_ file: AnyOpenFile) { device.release(typed(file)) }

  override func read(_ request: consuming ReadRequest, _ file: AnyOpenFile) {
    device.read(request, typed(file))
  }

  override func write(
    _ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: AnyOpenFile
  ) {
    device.write(request, bytes, typed(file))
  }

  override func ioctl(
    _ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: AnyOpenFile
  ) {
    device.ioctl(request, input, typed(file))
  }

  override func ioctlAreas(_ command: IoctlCommand, _ argument: UInt64) -> IoctlAreas {
    device.ioctlAreas(command, argument: argument)
  }

  override func poll(_ events: PollEvents, _ file: AnyOpenFile) -> PollEvents? {
    device.poll(events, typed(file))
  }

  override var isStream: Bool { device.isStream }

  override var wantsFlush: Bool { device.wantsFlush }

  override func flush(_ request: consuming SyncRequest, _ file: AnyOpenFile) {
    device.flush(request, typed(file))
  }

  override func fsync(_ request: consuming SyncRequest, dataOnly: Bool, _ file: AnyOpenFile) {
    device.fsync(request, dataOnly: dataOnly, typed(file))
  }

  override func seek(_ request: consuming SeekRequest, _ file: AnyOpenFile) {
    device.seek(request, typed(file))
  }

  override var size: Int? { device.size }

  override var givesTheSameAgain: Bool { device.givesTheSameAgain }
}

/// The device and the files that clients have open, for the callbacks of libfuse.
final class DeviceContext: FuseSession.Context {
  let device: AnyDevice
  /// See ``AnyOpenFile/hasOffsets``.
  let hasOffsets: Bool
  /// The attributes of a FUSE node. A CUSE node has the kernel's own inode.
  var fileState = FileState()
  /// Takes libfuse's answers if the requests come from this process, see ``DeviceConnection``. It returns whether the client gets the
  /// answer.
  var onAnswer: ((UnsafeBufferPointer<iovec>) -> Bool)?
  /// The open files by their addresses, which are the handles that the kernel has.
  private var files: [UInt64: AnyOpenFile] = [:]

  /// The memory for long answers of the thread that serves the node; nil before the first one. A page that no read has filled takes no
  /// memory.
  private var answerBuffer: UnsafeMutableBufferPointer<UInt8>?
  private var isAnswerBufferInUse = false
  /// The most bytes of an answer that is made on the stack.
  private static let shortAnswer = 256
  /// The size of the kernel's largest request.
  private static let longestAnswer = 1 << 20

  init(_ device: some CharacterDevice, hasOffsets: Bool) {
    self.device = TypedDevice(device)
    self.hasOffsets = hasOffsets
  }

  deinit { answerBuffer?.deallocate() }

  /// Calls `body` with memory for an answer of `count` bytes. The memory is valid until `body` returns.
  func withAnswerBuffer<Result>(
    of count: Int, _ body: (UnsafeMutableBufferPointer<UInt8>) -> Result
  ) -> Result {
    if count <= Self.shortAnswer {
      return withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Self.shortAnswer) { stack in
        let answer = UnsafeMutableBufferPointer(rebasing: stack.prefix(count))
        answer.initialize(repeating: 0)
        return body(answer)
      }
    }
    if pthread_equal(thread, pthread_self()) != 0, !isAnswerBufferInUse, count <= Self.longestAnswer
    {
      let buffer = answerBuffer ?? .allocate(capacity: Self.longestAnswer)
      answerBuffer = buffer
      isAnswerBufferInUse = true
      defer { isAnswerBufferInUse = false }
      return body(UnsafeMutableBufferPointer(rebasing: buffer.prefix(count)))
    }
    let own = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: count)
    defer { own.deallocate() }
    return body(own)
  }

  /// The file that the kernel's handle stands for.
  private func file(_ info: UnsafePointer<fuse_file_info>) -> AnyOpenFile? {
    UnsafeRawPointer(bitPattern: UInt(info.pointee.fh)).map {
      Unmanaged<AnyOpenFile>.fromOpaque($0).takeUnretainedValue()
    }
  }

  /// Answers an open: the client has `file` open from now on.
  func accept(_ request: RequestReference, _ info: fuse_file_info, _ file: AnyOpenFile) {
    let isStream = hasOffsets && !file.hasOffsets
    // Several writes of a stream can wait at the same time only if they are before the end of the file, as the kernel sees it.
    file.needsSize = hasOffsets && (file.isReadable || isStream)
    if file.needsSize {
      willOpenToRead()
      fileState.readers += 1
    }
    let handle = UInt64(UInt(bitPattern: Unmanaged.passUnretained(file).toOpaque()))
    // A client that is killed closes the node. It would wait for the answer to a flush, and no signal ends this wait.
    let wantsFlush = device.wantsFlush
    files[handle] = file
    // An error means that a signal has ended the client's open(2): the kernel sends no release for this file.
    let isOpen = request.answer { request in
      if isStream { return cfuse_reply_open_stream(request, handle, wantsFlush ? 1 : 0) }
      var info = info
      info.fh = handle
      info.direct_io = 1
      info.noflush = wantsFlush ? 0 : 1
      return fuse_reply_open(request, &info)
    }
    if !isOpen { close(handle) }
  }

  private func close(_ handle: UInt64) {
    guard let file = files.removeValue(forKey: handle) else { return }
    if file.needsSize { fileState.readers -= 1 }
    file.forgetPoll()
    device.release(file)
  }

  override func connectionWillEnd() { for handle in Array(files.keys) { close(handle) } }
}

// MARK: - The kernel's requests

extension DeviceContext {
  func open(_ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?) {
    guard let request, let info else { return }
    device.open(RequestReference(request, self), info.pointee)
  }

  func release(_ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?) {
    if let info { close(info.pointee.fh) }
    fuse_reply_err(request, 0)
  }

  /// Calls `body` with the open file of a request.
  @inline(__always)
  func withFile(
    _ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?,
    _ body: (RequestReference, fuse_file_info, AnyOpenFile) -> Void
  ) {
    guard let request, let info, let file = file(info) else {
      fuse_reply_err(request, EBADF)
      return
    }
    body(RequestReference(request, self), info.pointee, file)
  }

  func read(
    _ request: fuse_req_t?, _ count: Int, at offset: off_t,
    _ info: UnsafeMutablePointer<fuse_file_info>?, isRepeated: Bool = false
  ) {
    withFile(request, info) { request, info, file in
      device.read(
        ReadRequest(
          request, count: count, offset: Int(offset), flags: info.flags, isRepeated: isRepeated),
        file)
    }
  }

  func write(
    _ request: fuse_req_t?, _ bytes: UnsafePointer<CChar>?, _ count: Int, at offset: off_t,
    _ info: UnsafeMutablePointer<fuse_file_info>?
  ) {
    withFile(request, info) { request, info, file in
      UnsafeRawBufferPointer(start: bytes, count: count).withMemoryRebound(to: UInt8.self) {
        device.write(
          WriteRequest(request, count: count, offset: Int(offset), flags: info.flags), $0.span,
          file)
      }
    }
  }

  func ioctl(
    _ request: fuse_req_t?, _ command: UInt32, _ argument: UnsafeMutableRawPointer?,
    _ info: UnsafeMutablePointer<fuse_file_info>?, _ flags: UInt32,
    _ input: UnsafeRawPointer?, _ inputCount: Int, _ outputCount: Int
  ) {
    withFile(request, info) { request, info, file in
      let ioctl = IoctlRequest(
        request, command, UInt64(UInt(bitPattern: argument)), outputCount: outputCount,
        flags: file.flags, ioctlFlags: flags)
      // The first time, the kernel of an unrestricted node gives no bytes of the client's.
      if ioctl.isUnrestricted, inputCount == 0, outputCount == 0 {
        let areas = device.ioctlAreas(ioctl.command, ioctl.argument)
        guard areas.isEmpty else { return ioctl.retry(areas) }
      }
      let bytes = UnsafeBufferPointer(
        start: input?.assumingMemoryBound(to: UInt8.self), count: inputCount)
      device.ioctl(ioctl, bytes.span, file)
    }
  }

  func poll(
    _ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?, _ handle: OpaquePointer?
  ) {
    guard let info, let file = file(info) else {
      if let handle { fuse_pollhandle_destroy(handle) }
      fuse_reply_err(request, EBADF)
      return
    }
    // The handle is set before the device looks, so that no event after the device's answer is missed.
    if let handle { file.setPollHandle(PollHandle(pointer: handle)) }
    if let events = device.poll(PollEvents(rawValue: info.pointee.poll_events), file) {
      fuse_reply_poll(request, events.rawValue)
    } else {
      fuse_reply_err(request, ENOSYS)
    }
  }

  func flush(_ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?) {
    guard device.wantsFlush else {
      // The kernel does not ask again.
      fuse_reply_err(request, ENOSYS)
      return
    }
    withFile(request, info) { request, _, file in device.flush(SyncRequest(request), file) }
  }

  func fsync(
    _ request: fuse_req_t?, _ dataOnly: Bool, _ info: UnsafeMutablePointer<fuse_file_info>?
  ) {
    withFile(request, info) { request, _, file in
      device.fsync(SyncRequest(request), dataOnly: dataOnly, file)
    }
  }
}
