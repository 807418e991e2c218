import Glibc
import SystemPackage

/// A read or a write of a process, which can consist of several requests: one for each buffer of a vector, as the kernel calls a driver
/// that has `read` and `write`.
final class Transfer {
  let notification: Notification
  let process: CallerProcess
  let file: NodeFile
  let isWrite: Bool
  /// The position of the next byte; nil for the position of the file.
  private var offset: Int?
  private var areas: [MemoryArea]
  private var index = 0
  private var total = 0

  init(
    _ notification: Notification, _ process: CallerProcess, _ file: NodeFile, isWrite: Bool,
    areas: [MemoryArea], offset: Int? = nil
  ) {
    self.notification = notification
    self.process = process
    self.file = file
    self.isWrite = isWrite
    self.areas = areas
    self.offset = offset
  }

  /// Makes the next request, or ends the call.
  func proceed(_ server: SeccompServer) {
    while index < areas.count, areas[index].count == 0 { index += 1 }
    guard index < areas.count else {
      server.listener.answer(notification, total)
      return
    }
    let area = areas[index]
    let count = min(area.count, DeviceConnection.longestTransfer)
    let position = offset ?? file.position
    guard position <= Int.max - count else {
      _ = end(.failure(.overflow), server)
      return
    }
    let number: DeviceConnection.Number
    if isWrite {
      guard let bytes = process.bytes(at: area.address, count: count) else {
        _ = end(.failure(.badAddress), server)
        return
      }
      guard server.listener.isValid(notification) else { return }
      number = server.connection.write(
        file.caller.with(notification), file.handle, bytes: bytes, at: position, flags: file.flags
      ) { [self] answer in
        received(answer.map { $0.count >= 4 ? Int($0.loadUnaligned(as: UInt32.self)) : 0 }, server)
      }
    } else {
      number = server.connection.read(
        file.caller.with(notification), file.handle, count: count, at: position, flags: file.flags
      ) { [self] answer in
        received(answer.flatMap { deliver($0, at: area.address, server) }, server)
      }
    }
    server.keepIfWaiting(notification, number, of: file)
  }

  /// Copies the bytes of an answer into the memory of the process.
  private func deliver(
    _ bytes: UnsafeRawBufferPointer, at address: UInt64, _ server: SeccompServer
  ) -> Result<Int, Errno> {
    guard server.listener.isValid(notification) else { return .failure(.noSuchFileOrDirectory) }
    return process.setBytes(at: address, bytes) ? .success(bytes.count) : .failure(.badAddress)
  }

  private func received(_ result: Result<Int, Errno>, _ server: SeccompServer) -> Bool {
    guard case .success(let count) = result else { return end(result, server) }
    total += count
    if let offset { self.offset = offset + count } else { file.position += count }
    let isShort = count < areas[index].count
    index += 1
    guard !isShort, index < areas.count else { return end(.success(total), server) }
    proceed(server)
    return server.listener.isValid(notification)
  }

  private func end(_ result: Result<Int, Errno>, _ server: SeccompServer) -> Bool {
    switch result {
    case .success(let count): return server.listener.answer(notification, count)
    // The bytes of the buffers before are moved already.
    case .failure where total > 0: return server.listener.answer(notification, total)
    case .failure(let error): return server.listener.fail(notification, error)
    }
  }
}

extension Caller {
  /// The same user with the thread that makes a call.
  func with(_ notification: Notification) -> Caller {
    Caller(pid: notification.thread, uid: uid, gid: gid)
  }
}
