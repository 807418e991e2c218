import CLabLink
import CLinux
import Glibc
import SystemPackage

/// The daemon's end of the link to the monitor in the emulated host (Kernel/lab/link.h).
///
/// The host runs a stranger's kernel. The daemon checks the length and the kind of each frame.
final class MonitorLink {
  /// A frame from the monitor.
  struct Frame {
    let kind: lab_kind
    let id: UInt64
    let payload: [UInt8]
  }

  /// The reason why the link does not work any more.
  enum Failure: Error, CustomStringConvertible {
    case closed
    case malformed(String)
    case silent

    var description: String {
      switch self {
      case .closed: "the emulator has ended"
      case .malformed(let detail): "the host has sent something that is no frame (\(detail))"
      case .silent: "the host takes no requests"
      }
    }
  }

  /// The socket, which does not block.
  let descriptor: FileDescriptor
  private var received: [UInt8] = []
  private var buffer = [UInt8](repeating: 0, count: 64 << 10)
  /// The longest time until the host takes a part of a frame, in milliseconds.
  private let patience: Int32 = 10_000

  init(_ descriptor: FileDescriptor) {
    self.descriptor = descriptor
    _ = fcntl(descriptor.rawValue, F_SETFL, O_NONBLOCK)
  }

  deinit { try? descriptor.close() }

  /// Sends a frame.
  func send(_ kind: lab_kind, id: UInt64, _ payload: [UInt8] = []) throws(Failure) {
    let frame = lab_frame(length: UInt32(payload.count), kind: kind.rawValue, id: id)
    var bytes = withUnsafeBytes(of: frame) { Array($0) }
    bytes += payload
    var start = 0
    while start < bytes.count {
      let count = bytes.withUnsafeBytes {
        write(descriptor.rawValue, $0.baseAddress! + start, $0.count - start)
      }
      if count > 0 {
        start += count
      } else if errno == EAGAIN {
        var entry = pollfd(fd: descriptor.rawValue, events: Int16(POLLOUT), revents: 0)
        guard poll(&entry, 1, patience) > 0 else { throw .silent }
      } else if errno != EINTR {
        throw .closed
      }
    }
  }

  /// Returns the frames that have come, without a wait.
  func receive() throws(Failure) -> [Frame] {
    var frames: [Frame] = []
    while true {
      let count = read(descriptor.rawValue, &buffer, buffer.count)
      if count > 0 {
        received += buffer[..<count]
        try takeFrames(into: &frames)
        // Others are served in between.
        if frames.count >= 64 { return frames }
      } else if count == 0 {
        // The frames before the end are of use. The next call tells the end.
        guard frames.isEmpty else { return frames }
        throw .closed
      } else if errno == EAGAIN {
        return frames
      } else if errno != EINTR {
        throw .closed
      }
    }
  }

  /// Waits for a frame.
  ///
  /// - Returns: Whether one may be there.
  func wait(milliseconds: Int32) -> Bool {
    var entry = pollfd(fd: descriptor.rawValue, events: Int16(POLLIN), revents: 0)
    return poll(&entry, 1, max(0, milliseconds)) > 0
  }

  private func takeFrames(into frames: inout [Frame]) throws(Failure) {
    let header = MemoryLayout<lab_frame>.size
    var start = 0
    while received.count - start >= header {
      let frame = received.withUnsafeBytes {
        $0.loadUnaligned(fromByteOffset: start, as: lab_frame.self)
      }
      guard frame.length <= LAB_MOST_BYTES else { throw .malformed("length \(frame.length)") }
      let kind = lab_kind(rawValue: frame.kind)
      guard (LAB_ANSWER.rawValue...LAB_PLAYED.rawValue).contains(frame.kind) else {
        throw .malformed("kind \(frame.kind)")
      }
      let end = start + header + Int(frame.length)
      guard received.count >= end else { break }
      frames.append(
        Frame(kind: kind, id: frame.id, payload: Array(received[start + header..<end])))
      start = end
    }
    if start > 0 { received.removeFirst(start) }
  }
}

/// The answer of the monitor to a request.
struct MonitorAnswer {
  /// The result of a system call: 0 or more, or `-errno`.
  let result: Int64
  let visits: [lab_visit]
  let data: ArraySlice<UInt8>
  /// The numbers of events since the boot of the host; nil if the host does not answer.
  let counts: lab_counts?

  /// The answer to a request that the host does not answer any more.
  static let lost = MonitorAnswer(result: -Int64(EIO), visits: [], data: [])

  private init(result: Int64, visits: [lab_visit], data: ArraySlice<UInt8>) {
    self.result = result
    self.visits = visits
    self.data = data
    counts = nil
  }

  /// Reads a payload; nil if its lengths do not agree.
  init?(_ payload: [UInt8]) {
    let header = MemoryLayout<lab_answer>.size
    let visit = MemoryLayout<lab_visit>.stride
    guard payload.count >= header else { return nil }
    let answer = payload.withUnsafeBytes { $0.loadUnaligned(as: lab_answer.self) }
    guard payload.count == header + Int(answer.visits) * visit + Int(answer.size) else {
      return nil
    }
    result = answer.result
    visits = payload.withUnsafeBytes { bytes in
      (0..<Int(answer.visits)).map {
        bytes.loadUnaligned(fromByteOffset: header + $0 * visit, as: lab_visit.self)
      }
    }
    counts = answer.counts
    data = payload[(header + Int(answer.visits) * visit)...]
  }

  /// The error of the call; nil if it has succeeded.
  var error: Errno? {
    guard result < 0 else { return nil }
    // Only these numbers are errors of the kernel.
    return Errno(rawValue: result >= -4095 ? Int32(-result) : EIO)
  }

  var text: String { String(decoding: data, as: UTF8.self) }
}
