import ArgumentParser
import Scenarios

/// The format of a report.
enum GradeFormat: String, ExpressibleByArgument, CaseIterable {
  case text, tap, junit, json, csv

  /// The end of a file's name.
  var ending: String {
    switch self {
    case .text: "txt"
    case .junit: "xml"
    default: rawValue
    }
  }

  /// The report of some submissions.
  func report(_ results: [GradeResult], _ rubric: Rubric) -> String {
    let reports = results.map { GradeReport(result: $0, rubric: rubric) }
    switch self {
    case .text: return reports.map(\.text).joined(separator: "\n")
    case .tap:
      let plan = "TAP version 13\n1..\(results.count * rubric.lines.count)\n"
      var number = 0
      return plan + reports.map { $0.tap(&number) }.joined()
    case .junit:
      return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n"
        + reports.map(\.junit).joined() + "</testsuites>\n"
    case .json: return "[\n" + reports.map(\.json).joined(separator: ",\n") + "\n]\n"
    case .csv:
      return "submission,check,verdict,points,of,tried,came,expected,place,engines\n"
        + reports.map(\.csv).joined()
    }
  }
}

/// The report of a submission in each format.
struct GradeReport {
  let result: GradeResult
  let rubric: Rubric

  private var points: (own: Int, all: Int) { result.points(of: rubric) }

  private var checks: [(line: Rubric.Line, result: CheckResult, points: Int)] {
    rubric.lines.map { line in
      let check: CheckResult =
        result.failure.map { .skipped($0) } ?? result[line.check]
      return (line, check, check.verdict == .passed ? line.points : 0)
    }
  }

  // MARK: - For people

  var text: String {
    guard result.failure == nil else {
      return "\(result.name): not graded\n  \(result.failure ?? "")\n"
    }
    var lines = ["\(result.name): \(points.own) of \(points.all) points", "  \(result.code)"]
    lines += result.messages.map { "  \($0)" }
    for (line, check, own) in checks {
      let verdict =
        switch check.verdict {
        case .passed: "ok     "
        case .failed: "not ok "
        case .skipped: "skipped"
        }
      let share = check.verdict == .skipped ? "-" : "\(own)/\(line.points)"
      lines.append("  \(verdict) \(padded(share, 7)) \(line.check.rawValue): \(line.words)")
      lines += details(of: check).map { "                    \($0.name): \($0.text)" }
    }
    return lines.map { "\($0)\n" }.joined()
  }

  private func details(of check: CheckResult) -> [(name: String, text: String)] {
    switch check.verdict {
    case .passed: []
    case .skipped: [("reason", check.came)]
    case .failed:
      [
        ("tried", check.tried), ("came", check.came), ("expected", check.expected),
        ("at", check.place), ("engines", check.engines),
      ].filter { !$0.1.isEmpty }
    }
  }

  /// A row of the table for a class.
  static func table(_ results: [GradeResult], _ rubric: Rubric) -> String {
    let width = max(10, results.map(\.name.count).max() ?? 0)
    let head = "\(padded("submission", width))  points   of  lost by\n"
    return head
      + results.map { result in
        let points = result.points(of: rubric)
        let lost =
          result.failure == nil
          ? rubric.lines.filter { result[$0.check].verdict == .failed }.map(\.check.rawValue)
            .joined(separator: " ") : "not graded"
        let own = result.failure == nil ? "\(points.own)" : "-"
        let row =
          "\(padded(result.name, width))  \(padded(own, -6))  \(padded("\(points.all)", -3))"
        return row + (lost.isEmpty ? "\n" : "  \(lost)\n")
      }.joined()
  }

  // MARK: - For programs

  func tap(_ number: inout Int) -> String {
    var text = ""
    for (line, check, own) in checks {
      number += 1
      let words = "\(result.name): \(line.words)".replacing("#", with: "\\#")
      text +=
        "\(check.verdict == .failed || result.failure != nil ? "not ok" : "ok") \(number) - \(words)"
      if check.verdict == .skipped, result.failure == nil { text += " # SKIP \(check.came)" }
      text += "\n  ---\n  points: \(own)\n  of: \(line.points)\n"
      for detail in details(of: check) { text += "  \(detail.name): \(Self.quoted(detail.text))\n" }
      text += "  ...\n"
    }
    return text
  }

  var junit: String {
    let failures = checks.count { $0.result.verdict == .failed }
    let skipped = checks.count { $0.result.verdict == .skipped }
    let name = Self.xml(result.name)
    var text =
      "  <testsuite name=\"\(name)\" tests=\"\(checks.count)\" failures=\"\(result.failure == nil ? failures : 0)\" errors=\"\(result.failure == nil ? 0 : checks.count)\" skipped=\"\(result.failure == nil ? skipped : 0)\">\n"
    text +=
      "    <properties><property name=\"points\" value=\"\(points.own)\"/><property name=\"of\" value=\"\(points.all)\"/></properties>\n"
    for (line, check, _) in checks {
      text +=
        "    <testcase classname=\"\(name)\" name=\"\(Self.xml("\(line.check.rawValue): \(line.words)"))\">"
      if let failure = result.failure {
        text += "<error message=\"\(Self.xml(failure))\"/>"
      } else if check.verdict == .skipped {
        text += "<skipped message=\"\(Self.xml(check.came))\"/>"
      } else if check.verdict == .failed {
        let details = details(of: check).map { "\($0.name): \($0.text)\n" }.joined()
        text += "<failure message=\"\(Self.xml(check.came))\">\(Self.xml(details))</failure>"
      }
      text += "</testcase>\n"
    }
    return text + "  </testsuite>\n"
  }

  var json: String {
    let checks = checks.map { line, check, own in
      let fields =
        [
          ("check", Self.quoted(line.check.rawValue)), ("words", Self.quoted(line.words)),
          ("verdict", Self.quoted(check.verdict.rawValue)), ("points", "\(own)"),
          ("of", "\(line.points)"),
        ] + details(of: check).map { ($0.name, Self.quoted($0.text)) }
      return "    {" + fields.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ") + "}"
    }
    return """
        {
          "submission": \(Self.quoted(result.name)),
          "code": \(Self.quoted(result.code)),
          "graded": \(result.failure == nil),
          "failure": \(result.failure.map(Self.quoted) ?? "null"),
          "points": \(points.own), "of": \(points.all),
          "messages": [\(result.messages.map(Self.quoted).joined(separator: ", "))],
          "checks": [
      \(checks.joined(separator: ",\n"))
          ]
        }
      """
  }

  var csv: String {
    checks.map { line, check, own in
      let verdict = result.failure == nil ? check.verdict.rawValue : "not graded"
      return [
        result.name, line.check.rawValue, verdict, "\(own)", "\(line.points)", check.tried,
        check.came, check.expected, check.place, check.engines,
      ].map(Self.cell).joined(separator: ",") + "\n"
    }.joined()
  }

  // MARK: - Quotation

  /// A string of JSON, which is one of YAML, too. The texts have no control characters, as ``GradeResult/Line`` removes these.
  static func quoted(_ text: String) -> String {
    "\"\(text.printable.replacing("\\", with: "\\\\").replacing("\"", with: "\\\""))\""
  }

  static func xml(_ text: String) -> String {
    text.printable(allowing: ["\n"]).replacing("&", with: "&amp;").replacing("<", with: "&lt;")
      .replacing(">", with: "&gt;").replacing("\"", with: "&quot;")
  }

  /// A cell. A spreadsheet takes a text that begins with one of `=+-@` for a formula, unless an apostrophe is before it.
  static func cell(_ text: String) -> String {
    let text = text.first.map { "=+-@".contains($0) } == true ? "'\(text)" : text
    return "\"\(text.printable.replacing("\"", with: "\"\""))\""
  }
}

/// A text with spaces behind it, or, if the width is negative, before it.
private func padded(_ text: String, _ width: Int) -> String {
  let spaces = String(repeating: " ", count: max(0, abs(width) - text.count))
  return width < 0 ? spaces + text : text + spaces
}
