/// A line that the host's kernel logs.
public enum HostMessage: Hashable, Sendable {
  /// The hook: an access in its window.
  case hideSeekDetected(length: Int)
  /// The hook: an access longer than one byte.
  case hideSeekTooLong
  /// `io_mem_abort`: an access outside memory that the syndrome does not describe.
  case dataAbortWithoutSyndrome
}

extension HostMessage: CustomStringConvertible {
  public var description: String {
    switch self {
    case .hideSeekDetected(let length):
      "MMIO to HIDE and SEEK register detected, len: \(length)"
    case .hideSeekTooLong: "more than one byte being read/write, ERROR"
    case .dataAbortWithoutSyndrome:
      "Data abort outside memslots with no valid syndrome info"
    }
  }
}

/// The host's kernel log. A message becomes text only where somebody reads it.
public struct HostLog {
  /// Called for each message, in order, before what it reports is done.
  public var receive: ((HostMessage) -> Void)?

  public init(receive: ((HostMessage) -> Void)? = nil) { self.receive = receive }

  func callAsFunction(_ message: HostMessage) { receive?(message) }
}
