import Stage2Sim

/// A reader of a case, line by line. It keeps no line that it has read.
package struct CaseReader {
  /// A line with the results below it.
  package struct Line {
    /// The content of a line.
    package enum Content: Equatable {
      /// An empty line, or one that begins with `#`.
      case comment
      /// The line of the version.
      case kernel
      case machine(TableMachine)
      case operation(TableOperation)
    }

    /// The number of the line, from 1.
    package let number: Int
    package let text: String
    package let content: Content
    /// The lines below a machine or an operation, without the two spaces.
    package fileprivate(set) var results: [String] = []
  }

  /// The most bytes of results of one operation that are kept.
  private static let mostResults = 256 << 20

  /// The result of the last operation of a record, if the kernel's code followed an entry out of table memory.
  package static let lostResult = "follows an entry out of table memory"

  private var lines: TextLines
  /// The line that was read too far.
  private var pending: String?
  private var number = 0
  /// The version that takes the place of that of the text.
  private let kernel: KernelVersion?
  /// Another version that must have the operations, too.
  private let other: KernelVersion?
  private var named: KernelVersion?
  private var machine: TableMachine?
  /// The number of operations that were read.
  package private(set) var operationCount = 0
  /// Whether one of them, or the machine, has results.
  package private(set) var hasResults = false

  /// - Parameters:
  ///   - lines: The text.
  ///   - kernel: The version of Linux; nil for that of the text.
  ///   - other: Another version that must be able to play the case.
  package init(_ lines: TextLines, kernel: KernelVersion? = nil, other: KernelVersion? = nil) {
    self.lines = lines
    self.kernel = kernel
    self.other = other
  }

  /// Whether a line is the first one of a case, and not of a scenario.
  package static func isFirstLine(_ line: some StringProtocol) -> Bool {
    if line.hasPrefix("kernel ") { return true }
    let words = line.split(separator: " ")
    return words.first == "machine"
      && words.contains { word in
        ["fwb=", "xnx=", "tlbrange=", "pa="].contains { word.hasPrefix($0) }
      }
  }

  /// Whether a line is empty or begins with `#`.
  package static func isComment(_ line: some StringProtocol) -> Bool {
    line.isEmpty || line.hasPrefix("#")
  }

  /// The machine, after its line was read.
  ///
  /// - Throws: ``CaseError`` if the text has no such line.
  package func requireMachine() throws(CaseError) -> TableMachine {
    guard let machine else {
      throw CaseError(
        "the line 'machine' is missing: write a line such as 'machine granule=4K ipa=40 fwb=no'",
        line: number + 1)
    }
    return machine
  }

  /// The next line, with the results below it; nil at the end of the text.
  ///
  /// - Parameter keepsResults: Whether the line has its results. The reader reads them in any case.
  /// - Throws: ``CaseError`` if the line is not in the language, or an error of the text's origin.
  package mutating func next(keepsResults: Bool = true) throws -> Line? {
    guard let text = try nextText() else { return nil }
    var line = Line(number: number, text: text, content: try content(of: text))
    switch line.content {
    case .comment, .kernel: return line
    case .machine: break
    case .operation: operationCount += 1
    }
    var size = 0
    while let text = try nextText() {
      guard text.hasPrefix("  ") else {
        pending = text
        number -= 1
        break
      }
      hasResults = true
      guard keepsResults else { continue }
      size += text.utf8.count
      guard size <= Self.mostResults else {
        throw CaseError("one operation has more than 256 MiB of results: divide it", line: number)
      }
      line.results.append(String(text.dropFirst(2)))
    }
    return line
  }

  private mutating func nextText() throws -> String? {
    let text = try pending ?? lines.next()
    pending = nil
    if text != nil { number += 1 }
    return text
  }

  private mutating func content(of text: String) throws(CaseError) -> Line.Content {
    if Self.isComment(text) { return .comment }
    guard !text.hasPrefix("  ") else {
      throw CaseError(
        "a result without an operation above: remove the two spaces, or write the operation",
        line: number)
    }
    if let machine {
      return .operation(try operation(text, of: machine))
    }
    if text.hasPrefix("kernel "), named == nil {
      guard let version = KernelVersion(rawValue: String(text.dropFirst(7))) else {
        let versions = KernelVersion.allCases.map(\.rawValue).joined(separator: ", ")
        throw CaseError(
          "'\(text)' names no version of the model: write one of \(versions)", line: number)
      }
      named = version
      return .kernel
    }
    let machine = try TableMachine(
      parsing: text, kernel: kernel ?? named ?? .linux61, line: number)
    if let other { _ = try TableMachine(parsing: text, kernel: other, line: number) }
    self.machine = machine
    return .machine(machine)
  }

  private func operation(
    _ text: String, of machine: TableMachine
  ) throws(CaseError) -> TableOperation {
    guard !text.hasPrefix("machine ") && !text.hasPrefix("kernel ") else {
      throw CaseError(
        "'\(text)' stands below the machine: a file has one case; write it into another file",
        line: number)
    }
    let operation = try TableOperation(parsing: text, line: number)
    for version in [machine.kernel, other ?? machine.kernel]
    where !operation.kind.isAvailable(in: version) {
      let versions = KernelVersion.allCases.filter { operation.kind.isAvailable(in: $0) }
        .map(\.rawValue).joined(separator: ", ")
      throw CaseError(
        "Linux \(version.rawValue) has no function for '\(text)': versions with it are \(versions)",
        line: number)
    }
    return operation
  }
}
