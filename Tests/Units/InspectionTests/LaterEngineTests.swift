import CharacterDeviceServer
import Inspection
import Scenarios
import Stage2Sim
import SystemPackage
import Testing
import VirtWalkerDevice

/// An engine that performs a step when the test lets it, as an engine in another process would.
private final class LaterEngine: ModelWrapper, SimpleDevice {
  private var waiting: [() -> Void] = []

  override func perform(
    _ step: Step, completion: @escaping (Result<[Observation], EngineFailure>) -> Void
  ) {
    waiting.append { [model] in model.perform(step, completion: completion) }
  }

  override func waitForAnswer() { answer() }

  /// Performs the step that has waited for the longest time.
  func answer() { waiting.removeFirst()() }

  func open(_ request: consuming OpenRequest<GuestFile>) { model.open(request) }
  func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) { try model.read(into: &buffer) }
  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int { try model.write(bytes) }
}

/// Tests with an engine that performs a step later.
@Suite struct LaterEngineTests {
  private let device: Device
  private let engine: LaterEngine

  init() throws {
    (device, engine) = try Device.around(LaterEngine.init)
  }

  private func startWrite() throws -> any CommandWork {
    let text = Array("host read 0x40000000\n# comment\nhost fork\n".utf8)
    let work = try #require(try device.writer("control").write(text.span))
    // The first call reads the lines.
    #expect(work.proceed() == .unfinished)
    return work
  }

  /// The node and the files answer while the engine performs a step. The work continues after the answer of the engine.
  @Test func othersAreServedMeanwhile() throws {
    let work = try startWrite()
    var isReady = 0
    work.onReady = { isReady += 1 }
    #expect(work.proceed() == .waiting)
    try device.hide(0x41)
    #expect(try device.seek() == 0x41)
    #expect(try device.read("control") == "")
    #expect(isReady == 0)
    engine.answer()
    #expect(isReady == 1)
    #expect(work.proceed() == .waiting)
    engine.answer()
    #expect(work.proceed() == .finished)
    let lines = try device.lines("control")
    #expect(lines.first == "host read 0x40000000" && lines.contains("host fork"))
    #expect(lines.filter { $0 == "  result 0" }.count == 2)
  }

  @Test func interruptWhileTheEngineWorks() throws {
    let work = try startWrite()
    #expect(work.proceed() == .waiting)
    work.interrupt()
    #expect(try device.read("control") == "")
    engine.answer()
    #expect(
      try device.lines("control").last
        == "# The write has ended early: its writer was interrupted. Steps done: 1 of 2. The first line that was not done is line 2: write the rest once more."
    )
  }

  /// `replay` and `explain` wait for each answer.
  @Test func recordingIsTheSame() throws {
    let recording = try Recording(
      parsing: "machine cpu=cortex-a76\nhost write 0x40000000 0x5\nguest ldr w0,[0x40000000]\n")
    let later = LaterEngine(try ModelEngine(recording.machine))
    let played = try recording.played(on: later)
    #expect(try played == recording.played(on: ModelEngine(recording.machine)))
  }
}
