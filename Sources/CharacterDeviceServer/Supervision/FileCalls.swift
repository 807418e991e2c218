import CLinux
import Glibc
import SystemPackage

/// The system calls with a descriptor of the node.
extension SeccompServer {
  func handle(
    _ call: SupervisedCall, withDescriptor notification: Notification, _ process: CallerProcess
  ) {
    // Without an open file, no call can be for one.
    guard !files.isEmpty else { return listener.letKernelAnswer(notification) }
    switch call {
    case .sendfile, .splice, .tee: return copy(call, notification, process)
    case .epollControl: return addToEventSet(notification, process)
    case .ioSubmit: return submit(notification, process)
    default: break
    }
    guard let file = file(notification.int(0), of: process) else {
      return listener.letKernelAnswer(notification)
    }
    guard listener.isValid(notification) else { return }
    guard !isPathOnly(file) || call == .fstat else { return fail(notification, .badFileDescriptor) }
    switch call {
    case .fstat: answerStatus(notification, process, at: 1)
    case .read, .readv, .pread64, .preadv, .preadv2:
      transfer(call, notification, process, file, isWrite: false)
    case .write, .writev, .pwrite64, .pwritev, .pwritev2:
      transfer(call, notification, process, file, isWrite: true)
    case .ioctl: control(notification, process, file)
    case .lseek: seek(notification, file)
    case .fsync, .fdatasync: synchronize(call, notification, file)
    case .fallocate: fail(notification, .operationNotSupportedByDevice)
    // The kernel has nothing to do for a file without a page cache.
    case .fadvise64: listener.answer(notification, 0)
    case .fchmod: setMode(notification, process, mode: 1)
    case .fchown: setOwner(notification, process, user: 1)
    case .fcntl: setFlags(notification, file)
    case .vmsplice: fail(notification, .badFileDescriptor)
    default: listener.letKernelAnswer(notification)
    }
  }

  // MARK: - read and write

  private func transfer(
    _ call: SupervisedCall, _ notification: Notification, _ process: CallerProcess,
    _ file: NodeFile, isWrite: Bool
  ) {
    guard isWrite ? file.isWritable : file.isReadable else {
      return fail(notification, .badFileDescriptor)
    }
    do throws(Errno) {
      let offset = try offset(call, notification, file)
      let areas = try areas(call, notification, process)
      Transfer(notification, process, file, isWrite: isWrite, areas: areas, offset: offset)
        .proceed(self)
    } catch {
      fail(notification, error)
    }
  }

  /// The position that a call names; nil for the position of the file.
  private func offset(
    _ call: SupervisedCall, _ notification: Notification, _ file: NodeFile
  ) throws(Errno) -> Int? {
    let offset = notification.long(3)
    switch call {
    case .pread64, .pwrite64, .preadv, .pwritev: break
    case .preadv2, .pwritev2:
      let highPriority: Int32 = 1  // RWF_HIPRI
      // The kernel calls a driver that has `read` and `write` with no other flag.
      guard notification.int(5) & ~highPriority == 0 else { throw .notSupportedOnSocket }
      if offset == -1 { return nil }
    default: return nil
    }
    guard offset >= 0 else { throw .invalidArgument }
    guard !file.isStream else { throw .illegalSeek }
    return offset
  }

  private func areas(
    _ call: SupervisedCall, _ notification: Notification, _ process: CallerProcess
  ) throws(Errno) -> [MemoryArea] {
    let address = notification.argument(1)
    switch call {
    case .read, .write, .pread64, .pwrite64:
      let count = notification.long(2)
      guard count >= 0 else { throw .invalidArgument }
      return [MemoryArea(address: address, count: count)]
    default:
      let mostAreas = 1024  // UIO_MAXIOV
      guard (0...mostAreas).contains(notification.long(2)) else { throw .invalidArgument }
      guard let areas = process.areas(at: address, count: notification.long(2)) else {
        throw .badAddress
      }
      var total = 0
      for area in areas {
        let (sum, overflow) = total.addingReportingOverflow(area.count)
        guard area.count >= 0, !overflow else { throw .invalidArgument }
        total = sum
      }
      return areas
    }
  }

  // MARK: - ioctl

  private func control(
    _ notification: Notification, _ process: CallerProcess, _ file: NodeFile
  ) {
    let command = IoctlCommand(rawValue: UInt32(truncatingIfNeeded: notification.argument(1)))
    let address = notification.argument(2)
    switch command.rawValue {
    case IoctlCommand.closeOnExec, IoctlCommand.stayOpenOnExec, IoctlCommand.asynchronous:
      return listener.letKernelAnswer(notification)
    case IoctlCommand.nonBlocking:
      if let value = process.integer(at: address, as: Int32.self) {
        file.flags = value == 0 ? file.flags & ~O_NONBLOCK : file.flags | O_NONBLOCK
      }
      return listener.letKernelAnswer(notification)
    default: break
    }
    let areas = IoctlAreas(encodedIn: command, at: address)
    var input: [UInt8] = []
    if let area = areas.input.first, area.count > 0 {
      guard let bytes = process.bytes(at: address, count: area.count), bytes.count == area.count
      else { return fail(notification, .badAddress) }
      input = bytes
    }
    let outputCount = areas.output.first?.count ?? 0
    let number = connection.ioctl(
      file.caller.with(notification), file.handle, command: command.rawValue, argument: address,
      input: input, outputCount: outputCount
    ) { [unowned self] answer in
      let result: Result<Int, Errno> = answer.flatMap { bytes in
        // struct fuse_ioctl_out, and the bytes.
        guard bytes.count >= 16 else { return .failure(.ioError) }
        let output = UnsafeRawBufferPointer(rebasing: bytes[16...].prefix(outputCount))
        guard listener.isValid(notification), process.setBytes(at: address, output) else {
          return .failure(.badAddress)
        }
        return .success(Int(bytes.loadUnaligned(as: Int32.self)))
      }
      return finish(notification, result)
    }
    keepIfWaiting(notification, number, of: file)
  }

  /// Answers with the result of the device.
  private func finish(_ notification: Notification, _ result: Result<Int, Errno>) -> Bool {
    switch result {
    case .success(let value): listener.answer(notification, value)
    case .failure(let error): listener.fail(notification, error)
    }
  }

  // MARK: - Positions

  /// lseek(2): the server keeps the position, as the kernel does for a file of FUSE, and asks the device for ends, data and holes.
  private func seek(_ notification: Notification, _ file: NodeFile) {
    let offset = notification.long(1)
    let whence = notification.int(2)
    guard (0...4).contains(whence) else { return fail(notification, .invalidArgument) }
    if file.isStream || file.hasPositions == false { return fail(notification, .illegalSeek) }
    func move(_ result: Result<Int, Errno>) -> Bool {
      let position: Result<Int, Errno> = result.flatMap {
        guard $0 >= 0 else { return .failure(.invalidArgument) }
        file.position = $0
        return .success($0)
      }
      return finish(notification, position)
    }
    let caller = file.caller.with(notification)
    let number: DeviceConnection.Number
    if whence > Int32(SEEK_END) {
      guard offset >= 0 else { return fail(notification, .noSuchAddressOrDevice) }
      number = connection.seek(
        caller, file.handle, offset: offset, whence: whence, then: move)
    } else if whence == Int32(SEEK_END) || file.hasPositions == nil {
      // A device whose end cannot be found has no positions.
      number = connection.seekToEnd(caller, file.handle) { end in
        file.hasPositions = end != .failure(.illegalSeek)
        guard file.hasPositions == true else { return move(end) }
        switch whence {
        case Int32(SEEK_SET): return move(.success(offset))
        case Int32(SEEK_CUR): return move(.success(file.position &+ offset))
        default: return move(end.map { $0 &+ offset })
        }
      }
    } else {
      _ = move(.success(whence == Int32(SEEK_SET) ? offset : file.position &+ offset))
      return
    }
    keepIfWaiting(notification, number, of: file)
  }

  // MARK: - Others

  private func synchronize(
    _ call: SupervisedCall, _ notification: Notification, _ file: NodeFile
  ) {
    let number = connection.fsync(
      file.caller.with(notification), file.handle, dataOnly: call == .fdatasync
    ) { [unowned self] answer in finish(notification, answer.map { _ in 0 }) }
    keepIfWaiting(notification, number, of: file)
  }

  private func setFlags(_ notification: Notification, _ file: NodeFile) {
    let command = notification.int(1)
    guard command == F_SETFL else {
      // The file is no pipe for the process.
      return fail(notification, .badFileDescriptor)
    }
    let flags = notification.int(2)
    guard flags & CLINUX_O_DIRECT == 0 else { return fail(notification, .invalidArgument) }
    let changeable = O_NONBLOCK | O_APPEND
    file.flags = file.flags & ~changeable | flags & changeable
    listener.letKernelAnswer(notification)
  }

  /// Copies within the kernel: a driver without splice operations refuses them, and programs go on with read and write.
  private func copy(
    _ call: SupervisedCall, _ notification: Notification, _ process: CallerProcess
  ) {
    let first = file(notification.int(0), of: process)
    let second = file(notification.int(call == .splice ? 2 : 1), of: process)
    guard first != nil || second != nil else { return listener.letKernelAnswer(notification) }
    let (source, target) = call == .sendfile ? (second, first) : (first, second)
    let canCopy = source?.isReadable ?? true && target?.isWritable ?? true
    fail(notification, canCopy ? .invalidArgument : .badFileDescriptor)
  }

  /// epoll_ctl(2) with `EPOLL_CTL_ADD`: the kernel refuses a file whose driver has no poll operation.
  private func addToEventSet(_ notification: Notification, _ process: CallerProcess) {
    if hasPoll == false, file(notification.int(2), of: process) != nil {
      fail(notification, .notPermitted)
    } else {
      listener.letKernelAnswer(notification)
    }
  }

  /// io_submit(2): a driver with `read` and `write` has no asynchronous calls.
  private func submit(_ notification: Notification, _ process: CallerProcess) {
    let most = 1024
    let pointer = MemoryLayout<UInt64>.size
    let count = min(max(notification.long(1), 0), most)
    let pointers = process.bytes(at: notification.argument(2), count: count * pointer) ?? []
    for index in 0..<pointers.count / pointer {
      guard let block = UInt64(in: pointers.span, at: index * pointer),
        // The descriptor in struct iocb.
        let descriptor = process.integer(at: block &+ 20, as: Int32.self)
      else { break }
      if file(descriptor, of: process) != nil { return fail(notification, .invalidArgument) }
    }
    listener.letKernelAnswer(notification)
  }
}

extension IoctlCommand {
  /// Commands that the kernel answers for each file: asm-generic/ioctls.h.
  fileprivate static let nonBlocking: UInt32 = 0x5421  // FIONBIO
  fileprivate static let asynchronous: UInt32 = 0x5452  // FIOASYNC
  fileprivate static let stayOpenOnExec: UInt32 = 0x5450  // FIONCLEX
  fileprivate static let closeOnExec: UInt32 = 0x5451  // FIOCLEX
}
