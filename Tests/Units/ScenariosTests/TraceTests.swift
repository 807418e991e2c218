import Foundation
import Testing
import VirtWalkerDevice

@testable import Scenarios
@testable import Stage2Sim

/// Compares the tracepoints of the model with the real kernel's trace of the same steps (Tests/Traces/6.1).
@Suite struct TraceTests {
  static let files: [URL] = {
    let directory = URL(filePath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Traces/6.1")
    let files = try? FileManager.default.contentsOfDirectory(
      at: directory, includingPropertiesForKeys: nil)
    return (files ?? []).sorted { $0.path < $1.path }
  }()

  @Test func thereAreTraces() { #expect(Self.files.count >= 20) }

  @Test(arguments: files)
  func modelPassesTheSameTracepoints(file: URL) throws {
    let text = try String(contentsOf: file, encoding: .utf8)
    let head = try #require(text.range(of: "# tracer: nop\n"))
    let recording = try Recording(parsing: text[..<head.lowerBound])
    let steps = recording.steps.map(\.step)
    let kernel = try Self.kernelEvents(text[head.lowerBound...])
    #expect(kernel.count == steps.count)
    let engine = try recording.engine()
    for (number, step) in steps.enumerated() {
      let first = engine.events.end
      let seen = try engine.perform(step)
      var model: [String] = []
      engine.events.ring.forEach(from: first) { entry in
        guard case .tracepoint(let tracepoint) = entry.event else { return }
        model.append("\(tracepoint.name): \(tracepoint)")
      }
      model = Self.withoutInterrupts(
        Self.inRAM(
          model, at: VirtualMachine.memoryAddress.rawValue,
          size: recording.machine.configuration.memorySize)
      )
      var expected = kernel[number]
      if seen.contains(where: \.isHung) {
        // The number of repetitions depends on the arrival of the signal.
        model = Self.eachOnce(model)
        expected = Self.eachOnce(expected)
      }
      #expect(
        model == expected,
        "step \(number + 1), \(recording.steps[number].line.line.text)\n\(expected.joined(separator: "\n"))\nmodel:\n\(model.joined(separator: "\n"))"
      )
    }
  }

  /// The lines of the kernel's trace for each step, of the tracepoints that the model has.
  private static func kernelEvents(_ trace: Substring) throws -> [[String]] {
    var steps: [[String]] = []
    var ram: (address: UInt64, size: UInt64)?
    let known = [
      "kvm_entry", "kvm_exit", "kvm_guest_fault", "kvm_access_fault", "kvm_mmio",
      "kvm_userspace_exit", "kvm_unmap_hva_range", "kvm_set_spte_hva", "kvm_age_hva",
    ]
    for line in trace.split(separator: "\n") where !line.hasPrefix("#") {
      let match = try #require(
        line.wholeMatch(
          of: /.{16}-\d+ +\[000\] [.dbDX][.Nnp][.ZzHhs][.0-9a-f][.0-9a-f] +\d+[.]\d{6}: (\w+): (.+)/
        ),
        "\(line)")
      let name = match.output.1
      let fields = match.output.2
      if name == "tracing_mark_write" {
        if fields.hasPrefix("step ") { steps.append([]) }
        if let place = fields.wholeMatch(
          of: /machine: RAM 0x40000000 size 0x(\w+) is at 0x(\w+), .+/)
        {
          ram = (
            try #require(UInt64(place.output.2, radix: 16)),
            try #require(UInt64(place.output.1, radix: 16))
          )
        }
      } else if !steps.isEmpty, known.contains(String(name)) {
        steps[steps.count - 1].append("\(name): \(fields)")
      }
    }
    let place = try #require(ram)
    return steps.map { withoutInterrupts(inRAM($0, at: place.address, size: place.size)) }
  }

  /// Removes the MMU notifier's events outside guest RAM, and replaces addresses of the VMM by offsets in RAM.
  private static func inRAM(_ lines: [String], at start: UInt64, size: UInt64) -> [String] {
    lines.compactMap { line in
      guard line.contains(": mmu notifier ") else { return line }
      var text = ""
      var words = line.split(separator: " ")
      for index in words.indices where words[index].hasPrefix("0x") {
        guard let address = UInt64(words[index].dropFirst(2), radix: 16), address >= start,
          address - start <= size
        else { return nil }
        words[index] = "+\(address - start)"
      }
      text = words.joined(separator: " ")
      return text
    }
  }

  /// Removes interrupts and signals, which come at any time: the exit, KVM_RUN's return, and the next entry.
  private static func withoutInterrupts(_ lines: [String]) -> [String] {
    var kept: [String] = []
    var isInterrupted = false
    for line in lines {
      if line.hasPrefix("kvm_exit: IRQ: ") {
        isInterrupted = true
      } else if line == "kvm_userspace_exit: reason restart (4)" {
        continue
      } else if isInterrupted, line.hasPrefix("kvm_entry: ") {
        isInterrupted = false
      } else {
        kept.append(line)
      }
    }
    return kept
  }

  private static func eachOnce(_ lines: [String]) -> [String] {
    var seen: Set<String> = []
    return lines.filter { seen.insert($0).inserted }
  }
}

extension Observation {
  fileprivate var isHung: Bool {
    if case .run(let run) = self { run.end == .hung } else { false }
  }
}
