import CFuse
import CLinux
import Glibc
import SystemPackage

/// What the callbacks of a device's server need, and how they answer.
final class DeviceContext: FuseSession.Context {
  private let device: any CharacterDevice
  private let reply: UnsafeMutableBufferPointer<UInt8>
  /// What `stat(2)` of a FUSE node gives; a CUSE node's inode is the kernel's own.
  var attributes = Glibc.stat()
  /// How many open files of a FUSE node can be read.
  var readers = 0
  /// The thread that asked last for the attributes of a FUSE node, and has not opened it since.
  var lastAsker: pid_t?

  init(device: any CharacterDevice) {
    self.device = device
    // As large as the largest request of the kernel. Pages that no read fills are never resident.
    reply = .allocate(capacity: 1 << 20)
  }

  deinit { reply.deallocate() }

  func answerRead(_ request: fuse_req_t?, count: Int) {
    let target = UnsafeMutableBufferPointer(rebasing: reply.prefix(count))
    var span = OutputSpan(buffer: target, initializedCount: 0)
    do throws(Errno) {
      try device.read(into: &span)
    } catch {
      fuse_reply_err(request, error.rawValue)
      return
    }
    let length = span.finalize(for: target)
    target.withMemoryRebound(to: CChar.self) {
      _ = fuse_reply_buf(request, $0.baseAddress, length)
    }
  }

  /// Fills a page of the kernel's page cache with what one read of the device gives, again and again.
  func answerPage(_ request: fuse_req_t?, count: Int) {
    guard device.givesTheSameAgain else {
      fuse_reply_err(request, EINVAL)
      return
    }
    let page = UnsafeMutableBufferPointer(rebasing: reply.prefix(count))
    var span = OutputSpan(buffer: page, initializedCount: 0)
    do throws(Errno) {
      try device.read(into: &span)
    } catch {
      fuse_reply_err(request, error.rawValue)
      return
    }
    let length = span.finalize(for: page)
    guard length > 0 else {
      fuse_reply_buf(request, nil, 0)
      return
    }
    for index in length..<max(count, length) { page[index] = page[index - length] }
    page.withMemoryRebound(to: CChar.self) { _ = fuse_reply_buf(request, $0.baseAddress, count) }
  }

  func answerWrite(_ request: fuse_req_t?, _ bytes: UnsafePointer<CChar>?, count: Int) {
    answer(request, bytes, count: count) { (bytes) throws(Errno) in try device.write(bytes) }
  }

  /// - Returns: Whether the node is open now, and the kernel will say so when it is closed.
  @discardableResult
  func answerOpen(
    _ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?
  ) -> Bool {
    do throws(Errno) {
      try device.open()
      info?.pointee.direct_io = 1
      // A client that is killed closes the node, and would wait for the answer to a flush; no signal ends that.
      info?.pointee.noflush = 1
      // An error means that a signal has ended the client's open(2).
      return fuse_reply_open(request, info) == 0
    } catch {
      fuse_reply_err(request, error.rawValue)
      return false
    }
  }
}

/// Answers a write request by what `write` makes of its bytes.
func answer(
  _ request: fuse_req_t?, _ bytes: UnsafePointer<CChar>?, count: Int,
  by write: (Span<UInt8>) throws(Errno) -> Int
) {
  let buffer = UnsafeRawBufferPointer(start: bytes, count: count)
  do throws(Errno) {
    let taken = try buffer.withMemoryRebound(to: UInt8.self) { (bytes) throws(Errno) in
      try write(bytes.span)
    }
    fuse_reply_write(request, taken)
  } catch {
    fuse_reply_err(request, error.rawValue)
  }
}
