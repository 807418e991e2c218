import Scenarios

/// The result of a check.
struct CheckResult {
  enum Verdict: String { case passed, failed, skipped }

  var verdict: Verdict
  /// The thing that was tried, the thing that came, and the thing that was expected.
  var tried = ""
  var came = ""
  var expected = ""
  /// `virt_walker.c:41: function`; empty if no place is known.
  var place = ""
  /// The verdicts of two engines that differ, for people; empty if they do not.
  var engines = ""

  static let passed = CheckResult(verdict: .passed)

  static func skipped(_ reason: String) -> CheckResult {
    CheckResult(verdict: .skipped, came: reason)
  }
}

/// The result of a submission.
struct GradeResult {
  /// The name of the submission, without control characters.
  let name: String
  /// The files that were graded, for people.
  var code = ""
  /// The reason why the submission was not graded; nil if it was.
  var failure: String?
  /// The messages of the compiler.
  var messages: [String] = []
  var checks: [GradeCheck: CheckResult] = [:]

  init(name: String) { self.name = name }

  /// The points that the submission has, and those that it could have: a check that was skipped counts for none.
  func points(of rubric: Rubric) -> (own: Int, all: Int) {
    guard failure == nil else { return (0, rubric.lines.reduce(0) { $0 + $1.points }) }
    return rubric.lines.reduce(into: (0, 0)) { sum, line in
      switch self[line.check].verdict {
      case .passed: sum = (sum.0 + line.points, sum.1 + line.points)
      case .failed: sum.1 += line.points
      case .skipped: break
      }
    }
  }

  subscript(_ check: GradeCheck) -> CheckResult {
    checks[check] ?? .skipped("the grading did not come to this check")
  }
}

// MARK: - Two engines

extension GradeResult {
  /// The result of a submission that was graded twice.
  init(onModel model: GradeResult, onKernel kernel: GradeResult) {
    name = model.name
    code = model.code.isEmpty ? kernel.code : model.code
    failure =
      model.failure.map { "on the model: \($0)" }
      ?? kernel.failure.map { "on the real kernel: \($0)" }
    messages = model.messages + kernel.messages.filter { !model.messages.contains($0) }
    for check in Set(model.checks.keys).union(kernel.checks.keys) {
      checks[check] = CheckResult(onModel: model[check], onKernel: kernel[check])
    }
  }
}

extension CheckResult {
  /// A check that fails on one engine has failed.
  init(onModel model: CheckResult, onKernel kernel: CheckResult) {
    switch (model.verdict, kernel.verdict) {
    case (.failed, .failed):
      self = model
      if model.came != kernel.came { came = "\(model.came); on the real kernel: \(kernel.came)" }
    case (.failed, let other):
      self = model
      engines = "failed on the model, \(other.rawValue) on the real kernel"
    case (let other, .failed):
      self = kernel
      engines = "\(other.rawValue) on the model, failed on the real kernel"
    case (.skipped, .skipped): self = model
    default: self = .passed
    }
  }
}

// MARK: - Lines

/// The lines in which a worker tells its results, and in which they are kept. A field has no control characters, and a tab ends it.
extension GradeResult {
  enum Line {
    case code(String)
    case failure(String)
    case message(String)
    case check(GradeCheck, CheckResult)
    case done

    var text: String {
      let fields: [String] =
        switch self {
        case .code(let text): ["code", text]
        case .failure(let text): ["failure", text]
        case .message(let text): ["message", text]
        case .check(let check, let result):
          [
            "check", check.rawValue, result.verdict.rawValue, result.tried, result.came,
            result.expected, result.place, result.engines,
          ]
        case .done: ["done"]
        }
      // A submission cannot make a report of any size.
      return fields.map { String($0.prefix(2000)).printable }.joined(separator: "\t") + "\n"
    }
  }

  /// Takes a line.
  ///
  /// - Returns: Whether it is the last one.
  mutating func take(_ line: Substring) -> Bool {
    let fields = line.split(separator: "\t" as Character, omittingEmptySubsequences: false).map(
      String.init)
    switch (fields.first, fields.count) {
    case ("code", 2): code = fields[1]
    case ("failure", 2): failure = fields[1]
    case ("message", 2): messages.append(fields[1])
    case ("check", 8):
      guard let check = GradeCheck(rawValue: fields[1]),
        let verdict = CheckResult.Verdict(rawValue: fields[2])
      else { break }
      checks[check] = CheckResult(
        verdict: verdict, tried: fields[3], came: fields[4], expected: fields[5], place: fields[6],
        engines: fields[7])
    case ("done", 1): return true
    default: break
    }
    return false
  }

  /// The lines that give the same result again.
  var lines: String {
    var lines: [Line] = [.code(code)]
    if let failure { lines.append(.failure(failure)) }
    lines += messages.map { .message($0) }
    for check in GradeCheck.allCases {
      if let result = checks[check] { lines.append(.check(check, result)) }
    }
    return (lines + [.done]).map(\.text).joined()
  }
}
