import CLabLink
import CLinux
import CharacterDeviceServer
import Glibc
import Scenarios
import Stage2Sim
import SystemPackage

/// The real kernel for scenarios: the recorder runs them on KVM in an emulated host.
///
/// The machine of a scenario has no Linux: the recorder (Kernel/lab/recorder.c) is its monitor, and runs one instruction for each step. The
/// same program has made the recordings of oracle/record.
public final class ScenarioPlayer {
  /// The release of the host's kernel.
  public private(set) var kernelRelease = ""
  private let host: EmulatedHost
  private var nextID: UInt64 = 0

  /// The longest time from power-on until the monitor runs, in seconds.
  private static let bootLimit: UInt64 = 120
  /// The longest time in which the recorder writes no line, in seconds.
  private static let stepLimit: UInt64 = 120
  /// The huge pages that oracle/record reserves, 256 MiB.
  private static let usualHugePages: UInt64 = 128

  /// Starts a host, and waits for it.
  ///
  /// - Parameters:
  ///   - images: The files of the host.
  ///   - configuration: The CPU and the guest's memory.
  ///   - user: The user as whom the emulator runs; nil for the present one.
  public init(
    _ images: EmulatedHost.Images, _ configuration: VirtualMachine.Configuration,
    user: Sandbox.User?
  ) throws(EngineFailure) {
    host = try EmulatedHost(images, configuration, user: user)
    let deadline = Self.now + Self.bootLimit * Self.second
    while kernelRelease.isEmpty {
      for frame in try frames(before: deadline) where frame.kind == LAB_READY {
        kernelRelease = String(decoding: frame.payload, as: UTF8.self).printable
      }
    }
  }

  deinit { host.end() }

  /// Runs a scenario.
  ///
  /// - Parameters:
  ///   - machine: The machine, which the host fits.
  ///   - steps: The steps.
  ///   - onStep: A function that is called after each step with the observations, as a recording has them.
  /// - Throws: ``EngineFailure`` if the recorder or the host has ended early; an error of `onStep`.
  public func play(
    _ machine: MachineDescription, _ steps: [Step], onStep: ([String]) throws -> Void
  ) throws {
    var request = lab_play()
    request.huge_pages = UInt32(
      max(Self.usualHugePages, 2 * machine.configuration.memorySize >> 21))
    let text = ([machine.description] + steps.map(\.description)).map { "\($0)\n" }.joined()
    nextID += 1
    do {
      try host.link.send(
        LAB_PLAY, id: nextID, withUnsafeBytes(of: request) { Array($0) } + text.utf8)
    } catch {
      throw failure("\(error)")
    }
    var recorded = RecordedSteps()
    while true {
      let deadline = Self.now + Self.stepLimit * Self.second
      // Frames without text of the recording, such as a sign of life, do not extend the time.
      var isPlaying = false
      while !isPlaying {
        for frame in try frames(before: deadline) {
          switch frame.kind {
          case LAB_PLAYED:
            isPlaying = true
            for line in frame.payload.split(separator: UInt8(ascii: "\n")) {
              if let step = recorded.take(String(decoding: line, as: UTF8.self).printable) {
                try onStep(step)
              }
            }
          case LAB_READY: throw failure("the host's kernel has crashed")
          case LAB_ANSWER where frame.id == nextID:
            try check(MonitorAnswer(frame.payload))
            if let last = recorded.finish() { try onStep(last) }
            return
          default: break
          }
        }
      }
    }
  }

  private func check(_ answer: MonitorAnswer?) throws(EngineFailure) {
    guard let answer else { throw failure("the host has sent something that is no answer") }
    guard answer.result != 0 else { return }
    let message = answer.text.split(separator: "\n").map { String($0).printable }
    throw EngineFailure(
      "the recorder has ended: \(message.last ?? "status \(answer.result)")")
  }

  // MARK: - Frames

  private static let second: UInt64 = 1_000_000_000
  private static var now: UInt64 { clinux_monotonic_nanoseconds() }

  /// Waits for frames. There may be none.
  private func frames(before deadline: UInt64) throws(EngineFailure) -> [MonitorLink.Frame] {
    guard Self.now < deadline else { throw failure("the host does not answer any more") }
    host.readConsole()
    _ = host.link.wait(milliseconds: 100)
    do throws(MonitorLink.Failure) {
      let frames = try host.link.receive()
      // The log has come by the link: the text of the console beyond it is about the end of the host.
      let isNewBoot = frames.contains { $0.kind == LAB_READY }
      if !isNewBoot, frames.contains(where: { $0.kind == LAB_HOST_LOG }) { host.console.forget() }
      return frames
    } catch {
      throw failure("\(error)")
    }
  }

  /// The words of a kernel's lines about its end.
  private static let trouble = [
    "Unable to handle", "BUG", "Internal error", "pc : ", "lr : ", "Kernel panic",
  ]

  /// A failure of the host, with the lines of its kernel about it. The host is of no use afterwards.
  private func failure(_ reason: String) -> EngineFailure {
    host.readConsole()
    host.end()
    let lines = String(decoding: host.console.takeText(), as: UTF8.self).split(separator: "\n")
    let trouble = lines.filter { line in
      Self.trouble.contains { line.contains($0) }
    }
    return EngineFailure(
      ([reason] + trouble.prefix(12).map { "  \(String($0).printable)" }).joined(separator: "\n"))
  }
}
