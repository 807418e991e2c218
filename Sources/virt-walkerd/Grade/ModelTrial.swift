import Scenarios
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// A trial on the model.
final class ModelTrial: Trial {
  let hookHasAbort: Bool
  private let engine: ModelEngine
  private let list: List

  private final class List { var findings: [CodeFinding] = [] }

  /// Boots a machine.
  init(_ submission: Submission, _ builder: CodeBuilderClient, _ machine: MachineDescription) throws
  {
    let sources = submission.sources
    let code = UserCode(
      builder, module: sources.module.map { .init(name: $0) },
      hook: (sources.hook ?? sources.patch).map { .init(name: $0) })
    let list = List()
    code.onFinding = { list.findings.append($0) }
    self.list = list
    engine = try code.makeEngine(machine)
    hookHasAbort = code.hookHasAbort
  }

  var findings: [CodeFinding] { list.findings }
  var hasStopped: Bool { engine.guestStop != nil }
  var leaf: Leaf? { engine.leaf(for: HideSeek.target) }

  func open() throws(Errno) {
    var file = try engine.openFile()
    engine.closeFile(&file)
  }

  func write(_ bytes: [UInt8], hasBadBuffer: Bool) throws(Errno) -> Int {
    var file = try engine.openFile()
    defer { engine.closeFile(&file) }
    return try engine.write(bytes, to: &file, hasBadBuffer: hasBadBuffer)
  }

  func read(_ count: Int, hasBadBuffer: Bool) throws(Errno) -> [UInt8] {
    var file = try engine.openFile()
    defer { engine.closeFile(&file) }
    return try engine.read(count, from: &file, hasBadBuffer: hasBadBuffer)
  }

  func make(_ access: GuestAccess) throws(TrialFailure) -> UInt64? {
    let seen: [Observation]
    do {
      seen = try engine.perform(Step(parsing: access.text))
    } catch {
      throw TrialFailure(description: "\(error)")
    }
    for case .run(let run) in seen {
      if run.end == .hung { throw TrialFailure(description: "the access does not end") }
      if access.value == nil, run.end == .retired { return run.x0 }
    }
    return nil
  }

  func unload() -> [CodeFinding] {
    let before = findings.count
    engine.end()
    return Array(findings[before...])
  }

  func reload() throws(TrialFailure) {
    do {
      try engine.reset()
    } catch {
      throw TrialFailure(description: "\(error)")
    }
  }

  func end() { engine.end() }
}
