import CharacterDeviceServer
import KernelEngine
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode

/// The same scenario on the model and on the real kernel.
struct ScenarioComparison {
  private let text: ScenarioText
  private let images: EmulatedHost.Images
  private let hook: HookRunner?
  private let width = outputWidth()

  /// - Parameters:
  ///   - text: The scenario.
  ///   - images: The files of the host.
  ///   - hook: The hook of the model; nil for the built-in one.
  init(_ text: ScenarioText, _ images: EmulatedHost.Images, _ hook: HookRunner?) {
    self.text = text
    self.images = images
    self.hook = hook
  }

  /// - Throws: ``Failure`` if no kernel of a lab has the machine.
  static func check(_ text: ScenarioText) throws {
    let granule = text.machine.configuration.granule
    guard granule == .kib4 else {
      throw Failure(
        "\(text.name): the lab's kernel has pages of 4K, and the machine has granule=\(granule): oracle/record runs this scenario",
        status: .unavailable)
    }
  }

  /// Runs the scenario, and prints each step: `same`, or the observations of both sides. The last line has the number of steps.
  ///
  /// - Returns: Whether all steps are the same.
  func run() throws -> Bool {
    let steps = try text.steps()
    let model = try hook.makeEngine(text.machine)
    let player = try ScenarioPlayer(images, text.machine.configuration, user: UserOptions.usual)
    var done = 0
    var same = 0
    do {
      try player.play(text.machine, steps.map(\.step)) { kernel in
        guard done < steps.count else {
          throw EngineFailure("the recorder has written more steps than the scenario has")
        }
        if try compare(kernel, model, steps[done], number: done + 1) { same += 1 }
        done += 1
      }
    } catch let failure as EngineFailure {
      let lines = failure.description.split(separator: "\n").map(String.init)
      if done < steps.count {
        _ = try compare(lines, model, steps[done], number: done + 1)
      } else {
        try write("\(text.name): the end: \(lines.joined(separator: "; "))\n")
      }
      if done + 1 < steps.count {
        try write("\(text.name): the steps behind it are not compared\n")
      }
    }
    let title = "\(count(steps.count, "step")), Linux \(player.kernelRelease) and the model"
    guard same < steps.count else {
      try write("\(title): all same\n")
      return true
    }
    let lost = max(0, steps.count - done - 1)
    let rest = lost > 0 ? ", \(lost) not compared" : ""
    try write("\(title): \(same) same, \(steps.count - same - lost) different\(rest)\n")
    return false
  }

  /// KVM's own functions for the log print the number of the monitor's process, `kvm [33]: `. The process of the model has the number 0.
  static func withoutProcess(_ line: String) -> String {
    let start = "log kvm ["
    guard line.hasPrefix(start) else { return line }
    let rest = line.dropFirst(start.count).drop { $0.isASCII && $0.isNumber }
    return rest.hasPrefix("]: ") ? "\(start)0\(rest)" : line
  }

  /// - Returns: Whether the observations of a step are the same.
  private func compare(
    _ kernel: [String], _ model: any Engine, _ step: (line: Int, step: Step), number: Int
  ) throws -> Bool {
    let modelled: [String]
    do throws(EngineFailure) {
      modelled = try model.perform(step.step).map(\.description)
    } catch {
      modelled = ["no observations: \(error)"]
    }
    let title = "\(text.name):\(step.line): step \(number): \(step.step)"
    let kernel = kernel.map(Self.withoutProcess)
    guard kernel != modelled else {
      try write("\(title): same\n")
      return true
    }
    let lines = SideBySide(kernel: kernel, model: modelled).lines(width: width)
    try write(([title] + lines).map { "\($0)\n" }.joined())
    return false
  }
}

/// `1 step`, `2 steps`
func count(_ number: Int, _ what: String) -> String { "\(number) \(what)\(number == 1 ? "" : "s")" }
