import UserCode

/// A check of a submission. The raw value is its name in a rubric.
enum GradeCheck: String, CaseIterable {
  case load, zero, bytes, entry, pages, blocks
  case oneByte = "one-byte"
  case directions
  case badBuffers = "bad-buffers"
  case unload, reload, log, sanitizers, memory

  /// The part of a submission that the check is about; nil for each part.
  var part: CodeKind? {
    switch self {
    case .load, .zero, .bytes, .log, .sanitizers: nil
    case .entry, .pages, .blocks, .oneByte, .directions: .hook
    case .badBuffers, .unload, .reload, .memory: .module
    }
  }

  /// The usual points, 100 in all.
  var points: Int {
    switch self {
    case .load, .blocks: 10
    case .bytes, .entry: 15
    default: 5
    }
  }

  /// The usual words for people.
  var words: String {
    switch self {
    case .load: "the device node is there after the load of the module"
    case .zero: "a read before the first write gives 0"
    case .bytes: "each of the 256 bytes that is written comes back"
    case .entry: "the byte is in bits [58:51] of the entry of 0x40000000, and no other bit changes"
    case .pages: "it works with guest memory in pages"
    case .blocks: "it works with guest memory in blocks"
    case .oneByte: "only stores of one byte change the entry"
    case .directions: "a store to SEEK does not write, and a load from HIDE does not read"
    case .badBuffers: "a bad buffer of a program gives EFAULT, and changes nothing"
    case .unload: "the module leaves nothing behind when it is unloaded"
    case .reload: "the module can be loaded again, and works"
    case .log: "the kernels report no mistake"
    case .sanitizers: "AddressSanitizer and UndefinedBehaviorSanitizer find nothing"
    case .memory: "no memory is lost"
    }
  }
}

/// The checks of a grading with their points.
struct Rubric {
  struct Line {
    var check: GradeCheck
    var points: Int
    var words: String
  }

  private(set) var lines: [Line]

  /// The assignment.
  static let usual = Rubric(
    lines: GradeCheck.allCases.map { Line(check: $0, points: $0.points, words: $0.words) })

  private init(lines: [Line]) { self.lines = lines }

  /// Reads the lines `POINTS CHECK: words`.
  init(parsing text: String, name: String) throws {
    lines = []
    for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated()
    {
      let line = line.filter { $0 != "\r" }
      func failure(_ reason: String) -> Failure {
        Failure(
          "\(name):\(index + 1): \(reason): a line is POINTS CHECK: WORDS, and grade --list-checks prints the checks",
          status: .dataError)
      }
      let words = line.split(separator: " ", maxSplits: 1)
      guard let first = words.first, !first.hasPrefix("#") else { continue }
      guard let points = Int(first), (0...1000).contains(points) else {
        throw failure("'\(first)' is not a number of points from 0 to 1000")
      }
      let rest = words.count > 1 ? words[1] : ""
      let colon = rest.firstIndex(of: ":") ?? rest.endIndex
      guard let check = GradeCheck(rawValue: String(rest[..<colon])) else {
        throw failure("there is no check '\(rest[..<colon])'")
      }
      guard !lines.contains(where: { $0.check == check }) else {
        throw failure("the check '\(check.rawValue)' stands here a second time")
      }
      let own = rest[colon...].drop { $0 == ":" || $0 == " " }
      lines.append(
        Line(check: check, points: points, words: own.isEmpty ? check.words : String(own)))
    }
    guard !lines.isEmpty else {
      throw Failure(
        "\(name) has no check: grade --list-checks prints the usual rubric", status: .dataError)
    }
  }

  func has(_ check: GradeCheck) -> Bool { lines.contains { $0.check == check } }
}

extension Rubric: CustomStringConvertible {
  var description: String {
    lines.map { "\($0.points) \($0.check.rawValue): \($0.words)\n" }.joined()
  }
}
