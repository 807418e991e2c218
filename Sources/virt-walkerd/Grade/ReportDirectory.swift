import CharacterDeviceServer
import Glibc
import Stage2Sim
import SystemPackage
import UserCode

/// The directory of --output: a report for each submission, and in a file beside it the result with the fingerprint of all that it depends
/// on.
struct ReportDirectory {
  private let path: String
  private let settings: GradeSettings
  private let format: GradeFormat

  init(_ path: String, _ settings: GradeSettings, _ format: GradeFormat) throws {
    self.path = path
    self.settings = settings
    self.format = format
    guard mkdir(path, 0o700) == 0 || errno == EEXIST else {
      throw Failure(
        .current, doing: "make", at: FilePath(path),
        advice: "give a directory that you can write to")
    }
  }

  /// The first line of a kept result.
  private func key(_ fingerprint: UInt64) -> String {
    var sum = Fingerprint()
    sum.add(Array(settings.rubric.description.utf8))
    sum.add(
      Array(
        "\(settings.kernel?.rawValue ?? "")\n\(settings.linux ?? "")\n\(settings.engines)\n\(settings.isSanitized)\n\(settings.requiredParts.map(\.rawValue).sorted())"
          .utf8))
    return
      "virt-walkerd \(version) \(String(fingerprint, radix: 16)) \(String(sum.value, radix: 16))"
  }

  /// The kept result of a submission that has not changed.
  func result(of name: String, _ fingerprint: UInt64) -> GradeResult? {
    guard let bytes = try? Self.content(of: "\(path)/\(name).result") else { return nil }
    let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    guard let first = lines.first, first == key(fingerprint),
      access("\(path)/\(name).\(format.ending)", R_OK) == 0
    else { return nil }
    var result = GradeResult(name: name)
    var isDone = false
    for line in lines.dropFirst() { isDone = result.take(line) }
    return isDone ? result : nil
  }

  /// Writes the report of a submission, and its result unless the fingerprint is nil. A result that is there is complete.
  func write(_ result: GradeResult, _ fingerprint: UInt64?) throws {
    try put(format.report([result], settings.rubric), "\(result.name).\(format.ending)")
    guard let fingerprint else { return }
    try put("\(key(fingerprint))\n\(result.lines)", "\(result.name).result")
  }

  private func put(_ text: String, _ name: String) throws {
    let place = "\(path)/\(name)"
    do {
      let file = try FileDescriptor.open(
        "\(place).new", .writeOnly, options: [.create, .truncate, .closeOnExec],
        permissions: [.ownerReadWrite])
      _ = try file.closeAfter { try file.writeAll(text.utf8) }
      guard rename("\(place).new", place) == 0 else { throw Errno.current }
    } catch {
      throw Failure(
        error as? Errno ?? .ioError, doing: "write", at: FilePath(place),
        advice: "make room in that directory, and make it writable")
    }
  }

  /// The bytes of a file of at most 1 MiB.
  static func content(of path: String) throws -> [UInt8] {
    try FilePath(path).content(most: 1 << 20)
  }
}

extension FilePath {
  /// The bytes of the file, with an end some time after the first `most` ones.
  func content(most: Int) throws -> [UInt8] {
    let file = try FileDescriptor.open(self, .readOnly, options: .closeOnExec)
    return try file.closeAfter {
      var bytes: [UInt8] = []
      var buffer = [UInt8](repeating: 0, count: 1 << 16)
      while bytes.count <= most {
        let count = try buffer.withUnsafeMutableBytes { try file.read(into: $0) }
        guard count > 0 else { break }
        bytes += buffer[..<count]
      }
      return bytes
    }
  }
}
