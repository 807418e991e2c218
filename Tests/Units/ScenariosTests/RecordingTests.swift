import Foundation
import SeededRandom
import Stage2Sim
import Testing
import VirtWalkerDevice

@testable import Scenarios

/// The committed recordings are in the language, and the language describes their steps correctly.
@Suite struct RecordingTests {
  @Test func thereAreRecordings() throws {
    #expect(recordingNames.count >= 641)
    let steps = try committedRecordings().reduce(0) { $0 + $1.recording.steps.count }
    #expect(steps >= 29_696)
  }

  /// Each version that commands offer has recordings, and each folder of recordings is of a version that the machine lines name.
  @Test func eachVersionHasRecordings() throws {
    for version in KernelVersion.allCases {
      #expect(recordedNames(of: version).count >= 620, "\(version)")
    }
    for path in recordingPaths {
      let recording = try committedRecording(path: path)
      #expect(
        path.hasPrefix("\(recording.machine.configuration.kernel.rawValue)/"), "\(path)")
    }
  }

  @Test(arguments: recordingPaths)
  func recordingComesBackByteForByte(_ path: String) throws {
    let text = try recordingText(path: path)
    let recording = try committedRecording(path: path)
    #expect(recording.description == text)
    #expect(recording.lines.allSatisfy { $0.line.text.first != " " })

    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    let scenario = recording.scenario
    #expect(
      scenario.description == lines.filter { !$0.hasPrefix("  ") }.joined(separator: "\n"))
    #expect(try Scenario(parsing: scenario.description) == scenario)
    for (line, step) in recording.steps {
      #expect(lines[line.number - 1] == line.line.text)
      #expect(try Step(parsing: step.description) == step, "\(step)")
    }
  }

  /// The canonical line of a machine is the line in the recordings.
  @Test func machineIsDescribedAsTheRecordingsDo() throws {
    for (name, recording) in try committedRecordings() {
      let line = recording.lines.first { $0.line.content == .machine }
      // The recordings of other granules contain the default IPA size, too.
      let text = line?.line.text.replacing(" ipa=40", with: "")
      #expect(text == recording.machine.description, "\(name)")
    }
  }

  /// Below each step are the leaf of the target and, if the step's address exists and is in another page, the leaf of
  /// this address.
  @Test func touchedAddressHasItsLeaf() throws {
    for (name, recording) in try committedRecordings() {
      for (line, step) in recording.steps {
        var addresses = [MachineDescription.memoryBase]
        if let address = step.touchedAddress,
          address.aligned(to: recording.machine.configuration.granule.pageSize) != addresses[0],
          address.fits(bits: recording.machine.configuration.ipaBits)
        {
          addresses.append(address)
        }
        let leaves = line.observations.filter { $0.hasPrefix("leaf ") }.map {
          UInt64($0.split(separator: " ")[1].dropFirst(2), radix: 16).map(
            IntermediatePhysicalAddress.init(_:))
        }
        #expect(leaves == addresses, "\(name):\(line.number): \(line.line.text)")
      }
    }
  }

  /// The syndrome of each recorded data abort is the syndrome that the description of the instruction gives.
  @Test func instructionHasTheSyndromeThatWasRecorded() throws {
    var found: Set<Instruction> = []
    // A regular expression inside the loop would be parsed for each line.
    let abort = /abort esr=([0-9a-f]+) far=([0-9a-f]+) .*/
    for (name, recording) in try committedRecordings() {
      for (line, step) in recording.steps {
        guard case .guest(.instruction(let instruction, let address, _)) = step else { continue }
        for observation in line.observations {
          guard observation.hasPrefix("abort "),
            let match = observation.wholeMatch(of: abort),
            UInt64(match.output.2, radix: 16) == address.rawValue
          else { continue }
          let recorded = ExceptionSyndrome(rawValue: UInt64(match.output.1, radix: 16)!)
          guard recorded.exceptionClass == ExceptionSyndrome.dataAbort else { continue }
          guard case .access(let access, _) = A64Instruction(decoding: instruction.word) else {
            Issue.record("\(name):\(line.number): a prefetch that faults")
            continue
          }
          found.insert(instruction)
          // The mask leaves out FnV, S1PTW and the fault status code.
          let mask: UInt64 = 0xffff_ffff & ~0x3f
          let described = ExceptionSyndrome(dataAbort: .translation, level: 0, access: access)
          #expect(
            recorded.rawValue & mask == described.rawValue & mask,
            "\(name):\(line.number): \(line.line.text)")
        }
      }
    }
    // A store-exclusive without the exclusive monitor fails before it accesses memory, and no step can keep the
    // monitor.
    let never = Instruction.all.filter { !found.contains($0) }.map(\.mnemonic)
    #expect(never == ["stxrb", "stxr", "prfm"])
  }

  /// The recorder is the reference for the language. Its table has the same instructions in the same order.
  @Test func instructionsAreTheRecorders() throws {
    let source = try String(
      contentsOf: repository.appending(path: "Kernel/lab/recorder.c"),
      encoding: .utf8)
    let table = source.matches(of: /\{"([a-z0-9]+ [^"]*\[A[^"]*)", 0x([0-9a-f]{8}), (\d)\}/)
    #expect(table.map { String($0.output.1) } == Instruction.all.map { $0.text("A") })
    #expect(table.map { UInt32($0.output.2, radix: 16) } == Instruction.all.map(\.word))
    #expect(table.map { UInt64($0.output.3) } == Instruction.all.map(\.offset))
  }
}

/// Runs recordings of the real kernel on the model. Each line below each step must be the same.
@Suite struct EngineTests {
  /// Compares each field of the whole recording.
  @Test(arguments: recordingPaths)
  func recordingMatches(_ path: String) throws {
    let recording = try committedRecording(path: path)
    guard let difference = try recording.firstDifference(on: recording.engine()) else { return }
    let file = "\(recordingsFolder)/\(path).txt"
    Issue.record(
      """
      \(file):\(difference.line): step \(difference.step): \(difference.text)
      \(difference.sideBySide().joined(separator: "\n"))
      alone: .build/debug/virt-walkerd replay --check \(file)
      """)
  }

  /// An observation has one text form: each line of each recording is parsed and printed unchanged.
  @Test func everyObservationIsRead() throws {
    var lines = 0
    for (name, recording) in try committedRecordings() {
      for (line, _) in recording.steps {
        for text in line.observations {
          #expect(Observation(parsing: text)?.description == text, "\(name):\(line.number)")
          lines += 1
        }
      }
    }
    #expect(lines > 100_000)
  }

  @Test(arguments: [
    "", "run", "run retired", "run retired pc +4", "run retired pc 4 x0 5", "run hung x0 0x1 ",
    "result", "result EWRONG", "value 0x100000000", "dirty 0x40000000 pages", "tlbi",
    "tlbi all all",
    "leaf 0x40000000 level 1", "run mmio write 0x1 len 1 pc +0 x0 0x0", "abort esr=0 far=0",
  ])
  func noObservation(text: String) { #expect(Observation(parsing: text) == nil) }

  private let small = """
    # A comment.
    machine cpu=cortex-a76 backing=anonymous memory=64M

    host write 0x40000000 0x7
      result 0
      leaf 0x40000000 level 1 0000000000000000 counts 1
    guest ldr w0,[0x40000000] x0=0
      run retired pc +4 x0 0x8
      abort esr=93800005 far=0000000040000000 hpfar=0000400000
    host write 0x40000000 0x8
      result ENOENT

    """

  @Test func firstDifferenceIsFound() throws {
    let recording = try Recording(parsing: small)
    let difference = try #require(try recording.firstDifference(on: recording.engine()))
    #expect(difference.step == 2)
    #expect(difference.line == 7)
    #expect(difference.text == "guest ldr w0,[0x40000000] x0=0")
    #expect(difference.kernel == recording.steps[1].line.observations)
    #expect(difference.model.first == "run retired pc +4 x0 0x7")
    #expect(difference.model.count == 4, "the fetch aborts too, and there is a leaf")
  }

  /// The output of a run is a recording, and gives the same output when it is run.
  @Test func playedRecordingIsARecording() throws {
    let recording = try Recording(parsing: small)
    let played = try recording.played(on: recording.engine())
    #expect(played.scenario == recording.scenario)
    #expect(try Recording(parsing: played.description) == played)
    #expect(try played.firstDifference(on: recording.engine()) == nil)
  }

  @Test func differenceIsPrintedForTheWidth() {
    let difference = Difference(
      step: 1, line: 1, text: "host fork", kernel: ["result 0", "tlbi all"],
      model: ["result 0", "tlbi", "x"])
    let columns = [
      "  kernel     model", "  result 0   result 0", "  tlbi all ! tlbi", "           ! x",
    ]
    #expect(difference.sideBySide() == columns)
    #expect(difference.sideBySide(width: 21) == columns)
    #expect(
      difference.sideBySide(width: 20) == [
        "  result 0", "! kernel: tlbi all", "! model:  tlbi", "! model:  x",
      ])
  }

  /// With this granule, the pages of hugetlb have 512 MiB.
  @Test func machineThatCannotBe() throws {
    let machine = try MachineDescription(
      parsing: "machine granule=64K backing=hugetlb memory=64M")
    let error = #expect(throws: UnplayableMachine.self) { try ModelEngine(machine) }
    #expect(
      error?.description
        == "there is no such machine (EINVAL): machine cpu=cortex-a76 granule=64K backing=hugetlb memory=64M"
    )
  }

  /// Steps come from outside the program, so the engine must perform each step that the language has.
  @Test func noStepStopsTheEngine() throws {
    var generator = SplitMix64(seed: 3)
    let addresses: [IntermediatePhysicalAddress] = [
      0, 0x0b00_0000, 0x0b00_0001, 0x0c00_0000, 0x3fff_fff0, 0x4000_0000, 0x4000_0ff0,
      0x4000_1000, 0x43ff_fff0, 0x4400_0000, 0x8000_0000, 0x8000_0ff0, 0xff_ffff_fff0,
      0x100_0000_0000, 0xffff_ffff_fff0, 0x1_0000_0000_0000, 0xffff_ffff_ffff_fff0,
    ]
    let ranges: [AddressRange] = addresses.flatMap { address in
      [0, 1, 0x1000, 0x20_0000, 1 << 48].compactMap { AddressRange(address: address, size: $0) }
    }
    var steps: [Step] = [
      .host(.fork), .host(.endFork), .host(.ksm), .host(.dirtyLog(.on)), .host(.dirtyLog(.off)),
      .host(.dirtyLog(.get)), .host(.slot(.delete)), .host(.slot(.add)),
      .host(.slot(.addReadOnly)),
    ]
    for address in addresses {
      steps += Instruction.all.map {
        .guest(.instruction($0, address: .init(flat: address), x0: 0xf900_013f))
      }
      steps.append(.guest(.fetch(address: .init(flat: address), x0: 1)))
      guard address <= HostStep.lastAddress else { continue }
      steps.append(.host(.write(address: address, value: 0xf900_013f)))
      steps.append(.host(.read(address: address)))
      steps.append(.host(.age(address: address)))
      steps.append(.host(.slot(.move(to: address))))
    }
    for range in ranges {
      steps += MemoryAdvice.allCases.map { .host(.madvise($0, range)) }
      steps += MemoryProtection.allCases.map { .host(.mprotect($0, range)) }
      steps += [.host(.munmap(range)), .host(.mmap(range)), .host(.dirtyLog(.clear(range)))]
    }
    for line in [
      "machine cpu=cortex-a72", "machine cpu=max backing=huge code=0x40000000",
      "machine backing=hugetlb dirty-log=manual", "machine backing=memfd dirty-log=initially-set",
      "machine backing=file granule=16K cpu=max ipa=48", "machine granule=64K ipa=32",
    ] {
      let engine = try ModelEngine(MachineDescription(parsing: line))
      for step in steps.shuffled(using: &generator) {
        #expect(try !engine.perform(step).isEmpty, "\(step)")
      }
    }
  }
}
