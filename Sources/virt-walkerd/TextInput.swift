import Glibc
import SystemPackage

/// A text that the command line names: a file, or standard input.
struct TextInput {
  private let path: String
  /// The name in messages.
  let name: String
  /// The kind of text, for a message.
  private let kind: String
  /// All bytes of a text that cannot be read a second time, as that of a pipe; nil for a regular file.
  private let whole: [UInt8]?
  /// The first line that is not empty and no comment, if it is near the beginning.
  let firstLine: String?

  /// The most bytes of a text that cannot be read a second time.
  static let mostBytes = 16 << 20
  private static let partSize = 1 << 16

  /// Reads the beginning of a regular file, and all of another one, at most a little more than ``mostBytes``.
  ///
  /// - Parameters:
  ///   - path: The path of the file; `-` for standard input.
  ///   - kind: The kind of text, for a message.
  init(_ path: String, kind: String) throws {
    self.path = path
    self.kind = kind
    name = path == "-" ? "standard input" : path
    let (head, isWhole) = try Self.explaining(name, kind) {
      try Self.withFile(path) { file in
        let status = try Self.status(file)
        let canBeReadAgain = path != "-" && status.st_mode & S_IFMT == S_IFREG
        return (
          try Self.read(
            file, atMost: canBeReadAgain ? Self.partSize : Self.mostBytes + 1,
            expected: Int(status.st_size)),
          !canBeReadAgain
        )
      }
    }
    whole = isWhole ? head : nil
    firstLine = Self.firstLine(of: head.prefix(Self.partSize))
  }

  private static func firstLine(of bytes: ArraySlice<UInt8>) -> String? {
    var rest = bytes
    while !rest.isEmpty {
      let line = rest.prefix { $0 != UInt8(ascii: "\n") }
      if !line.isEmpty, line.first != UInt8(ascii: "#") {
        return String(decoding: line, as: UTF8.self)
      }
      rest = rest[line.endIndex...].dropFirst()
    }
    return nil
  }

  /// All bytes, at most a little more than `limit`.
  func bytes(atMost limit: Int) throws -> [UInt8] {
    if let whole { return whole }
    return try Self.explaining(name, kind) {
      try Self.withFile(path) { file in
        try Self.read(file, atMost: limit + 1, expected: Int(Self.status(file).st_size))
      }
    }
  }

  /// Calls a function with a function that returns the next part of the text, and no bytes at its end.
  func withParts<Result>(_ body: (@escaping () throws -> [UInt8]) throws -> Result) throws -> Result
  {
    if let whole {
      guard whole.count <= Self.mostBytes else {
        throw Failure(
          "\(name) is longer than \(Self.mostBytes >> 20) MiB: give a regular file, which has no limit",
          status: .dataError)
      }
      var part = whole
      return try body {
        defer { part = [] }
        return part
      }
    }
    let file = try Self.explaining(name, kind) { try Self.open(path) }
    defer { try? file.close() }
    return try body {
      try Self.explaining(name, kind) { try Self.read(file, atMost: Self.partSize) }
    }
  }

  private static func explaining<Result>(
    _ name: String, _ kind: String, _ body: () throws -> Result
  ) throws -> Result {
    do {
      return try body()
    } catch let error as Errno {
      throw Failure("cannot read \(name): \(error): give the path of \(kind)", status: .noInput)
    }
  }

  private static func open(_ path: String) throws -> FileDescriptor {
    try FileDescriptor.open(FilePath(path), .readOnly, options: [.closeOnExec])
  }

  private static func withFile<Result>(
    _ path: String, _ body: (FileDescriptor) throws -> Result
  ) throws -> Result {
    guard path != "-" else { return try body(.standardInput) }
    let file = try open(path)
    return try file.closeAfter { try body(file) }
  }

  private static func status(_ file: FileDescriptor) throws -> stat {
    var status = stat()
    guard fstat(file.rawValue, &status) == 0 else { throw Errno(rawValue: errno) }
    return status
  }

  /// - Parameter expected: The number of bytes that the file will probably have; 0 if it is unknown.
  /// - Returns: The next bytes, at most a little more than `limit`.
  private static func read(
    _ file: FileDescriptor, atMost limit: Int, expected: Int = 0
  ) throws -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(min(expected, limit))
    // One byte more shows the end of the file.
    var buffer = [UInt8](
      repeating: 0, count: expected > 0 ? min(partSize, expected + 1) : partSize)
    while bytes.count < limit {
      let count = try buffer.withUnsafeMutableBytes { try file.read(into: $0) }
      guard count > 0 else { break }
      bytes += buffer[..<count]
    }
    return bytes
  }
}
