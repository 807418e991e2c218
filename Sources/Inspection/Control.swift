import CharacterDeviceServer
import Scenarios
import Stage2Sim
import SystemPackage

/// An open file of a client that writes steps to the control file, in the language of scenarios (docs/scenario.md). There is no
/// line for the machine, because the machine runs already.
final class ControlWriter: CommandWriter {
  private unowned let target: any ControlTarget
  /// The beginning of a line that the next write continues.
  private var pending: [UInt8] = []

  /// The unit of the buffers of programs.
  private static let page = 4096

  init(_ target: any ControlTarget) { self.target = target }

  /// Takes the lines of one write(2). If a line is not in the language, no step is performed, and the write fails with `EINVAL`.
  ///
  /// The last line ends with the write. It continues in the next write only if the write has whole pages, because a program has
  /// then filled a buffer.
  func write(_ bytes: Span<UInt8>) -> (any CommandWork)? {
    var text = pending
    pending = []
    for index in bytes.indices { text.append(bytes[index]) }
    if bytes.count % Self.page == 0 {
      let end = (text.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1
      // One byte more than allowed is enough to see that a line is too long.
      pending = Array(text[end...].prefix(Scenario.maximumLineLength + 1))
      text.removeLast(text.count - end)
    }
    return work(text)
  }

  /// Takes the last line, which has no newline. Only a reader of the control file can learn of an error in it.
  func finish() -> (any CommandWork)? {
    defer { pending = [] }
    return work(pending)
  }

  private func work(_ text: [UInt8]) -> (any CommandWork)? {
    guard !text.isEmpty else { return nil }
    // If lines are not performed, the beginning of the next line belongs to them.
    return ControlWork(text, target) { [weak self] in self?.pending = [] }
  }
}

/// The receiver of the lines of a ``ControlWriter``.
protocol ControlTarget: AnyObject {
  /// Nanoseconds since a fixed moment.
  var now: UInt64 { get }
  /// The CPU time of this thread, in nanoseconds.
  var cpuTime: UInt64 { get }
  /// The number of times that the machine was booted anew.
  var boots: Int { get }

  /// Performs a step. A long step ends early if `goesOn` returns false.
  ///
  /// - Parameter completion: A function that is called once, before `perform` returns or later.
  func perform(
    _ step: Step, while goesOn: @escaping () -> Bool,
    completion: @escaping (Result<[Observation], EngineFailure>) -> Void)

  /// Makes `result` the content of the control file.
  func show(_ result: FileText)
}

/// The work for one write to the control file: all lines are parsed, and then the steps are performed, a few at a time.
final class ControlWork: CommandWork {
  private unowned let target: any ControlTarget
  private let onFailure: () -> Void
  /// The lines that are not parsed yet.
  private var unread: ArraySlice<ArraySlice<UInt8>>
  private var lines: [Scenario.Line] = []
  /// The index of the next line to perform.
  private var next = 0
  private var stepsDone = 0
  private var result = ControlResult()
  private var deadline: UInt64?
  private var boots: Int?
  /// Whether the engine performs a step.
  private var isInStep = false
  private var isInterrupted = false
  /// Whether the step goes on after ``proceed()`` has returned. The server does not call it any more after an interrupt.
  private var isWaiting = false
  /// The reason why the engine has not performed a step.
  private var failure: EngineFailure?
  var onReady: (() -> Void)?

  /// The largest CPU time of one write from its first step on, in seconds.
  private static let timeLimit: UInt64 = 10
  /// The number of lines to parse at a time. They take about a millisecond, as most lines take some microseconds.
  private static let linesAtOnce = 128
  /// The time for steps until others are served, in nanoseconds.
  private static let partTime: UInt64 = 1_000_000

  init(_ text: [UInt8], _ target: any ControlTarget, onFailure: @escaping () -> Void) {
    self.target = target
    self.onFailure = onFailure
    unread = text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)[...]
    if unread.last?.isEmpty == true { unread.removeLast() }
  }

  func proceed() -> CommandProgress {
    guard unread.isEmpty else {
      do throws(ScenarioError) {
        try readSome()
        return .unfinished
      } catch {
        onFailure()
        target.show(FileText("\("\(error)".printable)\n"))
        return .failed(.invalidArgument)
      }
    }
    return playSome()
  }

  func interrupt() {
    isInterrupted = true
    onFailure()
    // A step that the engine performs ends first.
    if !isInStep, unread.isEmpty { end("its writer was interrupted") }
  }

  // MARK: - The lines

  private func readSome() throws(ScenarioError) {
    for _ in 0..<Self.linesAtOnce {
      guard let bytes = unread.popFirst() else { return }
      try read(bytes)
    }
  }

  private func read(_ bytes: ArraySlice<UInt8>) throws(ScenarioError) {
    let number = lines.count + 1
    let line = String(decoding: bytes, as: UTF8.self)
    try Scenario.checkLength(bytes.count, line: number)
    guard !Scenario.Line.isComment(bytes) else {
      lines.append(Scenario.Line(text: line, content: .comment))
      return
    }
    if bytes.starts(with: "machine ".utf8) {
      throw ScenarioError(
        line: number, column: 1,
        message:
          "expected guest or host: the machine runs already; virt-walkerd replay plays a scenario on one of its own"
      )
    }
    let step = try Step(parsing: line, line: number)
    lines.append(Scenario.Line(text: line, content: .step(step)))
  }

  // MARK: - The steps

  private func playSome() -> CommandProgress {
    let start = target.now
    if deadline == nil {
      deadline = target.cpuTime + Self.timeLimit * 1_000_000_000
      boots = target.boots
    }
    var now = start
    while next < lines.count {
      if let failure {
        end("\(failure)")
        return .failed(.ioError)
      }
      if target.boots != boots {
        end("the machine was booted anew")
        return .failed(.canceled)
      }
      if isInterrupted {
        end("its writer was interrupted")
        return .failed(.interrupted)
      }
      if target.cpuTime >= deadline! {
        end("a write may take \(Self.timeLimit) s of CPU time at most")
        return .failed(.timedOut)
      }
      guard now - start < Self.partTime else { return .unfinished }
      let line = lines[next]
      result.append(line.text.printable)
      if case .step(let step) = line.content {
        perform(step)
        if isInStep {
          isWaiting = true
          return .waiting
        }
      } else {
        next += 1
      }
      now = target.now
    }
    target.show(result.text)
    return .finished
  }

  private func perform(_ step: Step) {
    isInStep = true
    let completion = { [self] (performed: Result<[Observation], EngineFailure>) in
      isInStep = false
      switch performed {
      case .success(let observations):
        for seen in observations { result.append("  \(seen)") }
        stepsDone += 1
        next += 1
      case .failure(let reason): failure = reason
      }
      if isWaiting, isInterrupted { end("its writer was interrupted") }
      isWaiting = false
      onReady?()
    }
    target.perform(step, while: { [unowned self] in goesOn }, completion: completion)
  }

  private var goesOn: Bool { !isInterrupted && target.cpuTime < deadline! }

  /// Writes into the control file why some steps were not performed.
  private func end(_ reason: String) {
    onFailure()
    let steps = lines.count { if case .step = $0.content { true } else { false } }
    result.append(
      "# The write has ended early: \(reason). Steps done: \(stepsDone) of \(steps). The first line that was not done is line \(next + 1): write the rest once more."
    )
    target.show(result.text)
  }
}

/// The content of the control file, with a limited number of bytes.
private struct ControlResult {
  private var bytes: [UInt8] = []
  private var linesLeftOut = 0

  private static let maximumSize = 8 << 20

  mutating func append(_ line: String) {
    guard linesLeftOut == 0, bytes.count + line.utf8.count < Self.maximumSize else {
      linesLeftOut += 1
      return
    }
    bytes += line.utf8
    bytes.append(UInt8(ascii: "\n"))
  }

  var text: FileText {
    guard linesLeftOut > 0 else { return FileText([bytes[...]]) }
    let note =
      "# \(linesLeftOut) more lines are left out: this file has at most \(Self.maximumSize >> 20) MiB.\n"
    return FileText([bytes[...], Array(note.utf8)[...]])
  }
}

/// An open file of which each write is a command.
final class SingleCommandWriter: CommandWriter {
  private let perform: (Span<UInt8>) throws(Errno) -> Void

  init(_ perform: @escaping (Span<UInt8>) throws(Errno) -> Void) { self.perform = perform }

  func write(_ bytes: Span<UInt8>) throws(Errno) -> (any CommandWork)? {
    try perform(bytes)
    return nil
  }

  func finish() -> (any CommandWork)? { nil }
}
