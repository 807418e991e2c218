/// The first step of which an engine has other observations than the recorded kernel.
public struct Difference: Hashable, Sendable {
  /// The number of the step, from 1.
  public let step: Int
  /// The step's line in the recording.
  public let line: Int
  /// The step as the recording has it.
  public let text: String
  /// The observations of the real kernel.
  public let kernel: [String]
  /// The observations of the engine, which is the model.
  public let model: [String]

  /// Both sides as lines to print, see ``SideBySide/lines(width:titles:)``.
  public func sideBySide(width: Int? = nil) -> [String] {
    SideBySide(kernel: kernel, model: model).lines(width: width)
  }
}

extension Recording {
  /// Performs the steps of the recording up to the first step with other observations.
  ///
  /// - Parameter engine: An engine whose machine is ``machine``, as it was made.
  /// - Returns: That step; nil if all observations are the same.
  public func firstDifference(on engine: any Engine) throws(EngineFailure) -> Difference? {
    for (index, (line, step)) in steps.enumerated() {
      if let difference = try engine.difference(performing: step, number: index + 1, of: line) {
        return difference
      }
    }
    return nil
  }

  /// The recording of the same scenario on an engine.
  ///
  /// - Parameter engine: An engine whose machine is ``machine``, as it was made.
  public func played(on engine: any Engine) throws(EngineFailure) -> Recording {
    var played: [Line] = []
    var number = 1
    for old in lines {
      var line = Line(number: number, line: old.line)
      if case .step(let step) = old.line.content {
        line.observations = try engine.perform(step).map(\.description)
      }
      number += 1 + line.observations.count
      played.append(line)
    }
    return Recording(machine: machine, lines: played)
  }
}

extension Engine {
  /// Performs a step, and compares its observations with those of `line`.
  ///
  /// - Parameter number: The number of the step, from 1.
  /// - Returns: Nil if both are the same.
  package func difference(
    performing step: Step, number: Int, of line: Recording.Line
  ) throws(EngineFailure) -> Difference? {
    let seen = try perform(step).map(\.description)
    guard seen != line.observations else { return nil }
    return Difference(
      step: number, line: line.number, text: line.line.text, kernel: line.observations, model: seen)
  }
}
