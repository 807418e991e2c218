import CharacterDeviceServer
import Scenarios
import Stage2Sim
import SystemPackage

/// Somebody who writes lines of the language of scenarios (docs/scenario.md) to the control file: steps without the first
/// line of a scenario, as the machine is there already.
final class ControlWriter: CommandWriter {
  /// What is done with lines, or with what is wrong.
  typealias Receiver = (Result<[Scenario.Line], ScenarioError>) -> Void

  private let receive: Receiver
  /// The beginning of a line that the next write goes on with.
  private var pending: [UInt8] = []

  /// Programs write through buffers of whole pages.
  private static let page = 4096

  init(_ receive: @escaping Receiver) { self.receive = receive }

  /// The lines of one write(2): all of them, or, where one is not in the language, none and `EINVAL`.
  ///
  /// A line may end with the write. Only where whole pages were written, by a program that has filled a buffer, does it
  /// go on in the next.
  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    var text = pending
    pending = []
    for index in bytes.indices { text.append(bytes[index]) }
    if bytes.count % Self.page == 0 {
      let end = (text.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1
      // One byte more than a line may have is enough to see that it is too long.
      pending = Array(text[end...].prefix(Scenario.maximumLineLength + 1))
      text.removeLast(text.count - end)
    }
    try play(text)
    return bytes.count
  }

  /// The rest has no newline.
  func finish() {
    // Nobody is left to tell that it was wrong, but who reads the control file.
    try? play(pending)
    pending = []
  }

  private func play(_ text: [UInt8]) throws(Errno) {
    guard !text.isEmpty else { return }
    do throws(ScenarioError) {
      receive(.success(try Self.parse(text)))
    } catch {
      receive(.failure(error))
      throw .invalidArgument
    }
  }

  private static func parse(_ text: [UInt8]) throws(ScenarioError) -> [Scenario.Line] {
    var lines: [Scenario.Line] = []
    var split = text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    if split.last?.isEmpty == true { split.removeLast() }
    for (index, bytes) in split.enumerated() {
      let line = String(decoding: bytes, as: UTF8.self)
      try Scenario.checkLength(bytes.count, line: index + 1)
      guard !Scenario.Line.isComment(bytes) else {
        lines.append(Scenario.Line(text: line, content: .comment))
        continue
      }
      if bytes.starts(with: "machine ".utf8) {
        throw ScenarioError(
          line: index + 1, column: 1,
          message:
            "expected guest or host: the machine runs already; virt-walkerd replay plays a scenario on one of its own"
        )
      }
      let step = try Step(parsing: line, line: index + 1)
      lines.append(Scenario.Line(text: line, content: .step(step)))
    }
    return lines
  }
}

/// A file whose writes are each a command by itself.
final class SingleCommandWriter: CommandWriter {
  private let perform: (Span<UInt8>) throws(Errno) -> Void

  init(_ perform: @escaping (Span<UInt8>) throws(Errno) -> Void) { self.perform = perform }

  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    try perform(bytes)
    return bytes.count
  }

  func finish() {}
}
