import SystemPackage

/// The reason why a node cannot be served. The description has the problem, the path, the cause and the next step.
public struct NodeError: Error, Hashable, Sendable {
  /// The kind of an error.
  public enum Kind: Hashable, Sendable {
    /// The kernel or this machine lacks a feature that the server needs.
    case unsupported
    /// The caller has no permission.
    case notPermitted
    /// Something else is at the node's path.
    case exists
    /// Any other refusal of the system.
    case system
  }

  /// The kind, for a program that can go on in another way.
  public let kind: Kind
  /// The failure and its cause.
  public let problem: String
  /// The next step for the user.
  public let advice: String

  /// An error.
  public init(_ kind: Kind, _ problem: String, advice: String) {
    self.kind = kind
    self.problem = problem
    self.advice = advice
  }

  /// An error for a system call that failed on `path`.
  init(_ errno: Errno, doing action: String, at path: FilePath, advice: String) {
    let kind: Kind
    switch errno {
    case .permissionDenied, .notPermitted: kind = .notPermitted
    case .noSuchFileOrDirectory, .noSuchAddressOrDevice, .operationNotSupportedByDevice:
      kind = .unsupported
    case .fileExists: kind = .exists
    default: kind = .system
    }
    self.init(kind, "cannot \(action) \(path): \(errno)", advice: advice)
  }
}

extension NodeError: CustomStringConvertible {
  public var description: String { "\(problem): \(advice)" }
}
