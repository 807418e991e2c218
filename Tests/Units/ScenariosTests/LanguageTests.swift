import SeededRandom
import Stage2Sim
import Testing

@testable import Scenarios

/// Tests of valid lines of the language, and of the messages for invalid lines.
@Suite struct LanguageTests {
  @Test func defaultsAreTheDocuments() throws {
    let machine = try MachineDescription(parsing: "machine cpu=cortex-a76")
    #expect(machine == MachineDescription())
    #expect(machine.configuration.granule == .kib4)
    #expect(machine.configuration.ipaBits == 40)
    #expect(machine.configuration.memorySize == 64 << 20)
    #expect(machine.configuration.backing == .anonymous)
    #expect(machine.configuration.dirtyLogProtection == .automatic)
    #expect(machine.code == 0x8000_0000)
  }

  @Test func machineWithAllWords() throws {
    let line =
      "machine cpu=max granule=64K ipa=48 backing=hugetlb memory=512M dirty-log=initially-set code=0x40001000"
    let machine = try MachineDescription(parsing: line)
    #expect(machine.configuration.cpu == .max)
    #expect(machine.configuration.granule == .kib64)
    #expect(machine.configuration.ipaBits == 48)
    #expect(machine.configuration.memorySize == 512 << 20)
    #expect(machine.configuration.backing == .hugetlb)
    #expect(machine.configuration.dirtyLogProtection == .initiallySet)
    #expect(machine.code == 0x4000_1000)
    #expect(machine.description == line)
  }

  @Test func numbersAreDecimalOrHex() throws {
    let step = try Step(parsing: "guest str x0,[1073741824] x0=0xFFFFffffFFFFffff")
    #expect(step.description == "guest str x0,[0x40000000] x0=0xffffffffffffffff")
    #expect(
      try Step(parsing: "host write 0x0000000000000000040000000 0")
        == Step(parsing: "host write 0x40000000 0x0"))
    #expect(try Step(parsing: "guest fetch 0x1 x0=0").description == "guest fetch 0x00000001")
  }

  /// Assemblers print operands with a space after the comma. The canonical line has no such space.
  @Test func spaceMayStandBehindEachComma() throws {
    for instruction in Instruction.all {
      let line = "guest \(instruction.text("0x40000000")) x0=0x7"
      let step = try Step(parsing: line)
      #expect(step.description == line)
      let parts = line.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
      for spaces in 0..<1 << (parts.count - 1) {
        let spaced = parts.dropFirst().enumerated().reduce(parts[0]) { text, part in
          text + (spaces >> part.offset & 1 == 0 ? "," : ", ") + part.element
        }
        #expect(try Step(parsing: spaced) == step, "\(spaced)")
        #expect(try Recording(parsing: "machine cpu=max\n\(spaced)").steps.map(\.step) == [step])
      }
    }
  }

  /// Lines, the column of the mistake, and the words about it. A type in the code saves seconds of its compilation.
  private static let badSteps: [(String, Int, String)] = [
    ("", 1, "expected guest or host, found the end of the line"),
    ("# comment", 1, "expected guest or host, found '#'"),
    ("run", 1, "expected guest or host, found 'run'"),
    (" host fork", 1, "expected guest or host, found one more space"),
    ("host", 5, "expected write, read, madvise"),
    ("host ", 6, "or slot, found the end of the line"),
    ("host  fork", 6, "found one more space"),
    ("host fork ", 10, "expected the end of the line, found ' '"),
    ("host fork it", 10, "expected the end of the line, found ' it'"),
    ("host spoon", 6, "or slot, found 'spoon'"),
    ("host Fork", 6, "found 'Fork'"),
    ("host write", 11, "expected an address, found the end of the line"),
    ("host write here 1", 12, "expected an address, decimal or hex with 0x, found 'here'"),
    ("host write 0x 1", 12, "decimal or hex with 0x, found '0x'"),
    ("host write -4 1", 12, "decimal or hex with 0x, found '-4'"),
    ("host write +4 1", 12, "decimal or hex with 0x, found '+4'"),
    ("host write 0X4 1", 12, "decimal or hex with 0x, found '0X4'"),
    ("host write 010 1", 12, "expected an address without zeros in front, found '010'"),
    ("host write 0x40000002 1", 12, "expected an address that is a multiple of 4"),
    ("host write 0x1000000000000 1", 12, "expected an address of at most 48 bits"),
    ("host write 0x10000000000000000 1", 12, "expected an address of at most 64 bits"),
    ("host write 18446744073709551616 1", 12, "expected an address of at most 64 bits"),
    ("host write 4", 13, "expected a value, found the end of the line"),
    ("host write 4 0x100000000", 14, "expected a value of at most 32 bits"),
    ("host read 4 4", 12, "expected the end of the line, found ' 4'"),
    ("host madvise", 13, "expected dontneed, free"),
    ("host madvise free", 18, "expected an address"),
    ("host madvise please 0 0", 14, "or populate-write, found 'please'"),
    ("host madvise free 0", 20, "expected a size, found the end of the line"),
    ("host madvise free 0 0x1000000000001", 21, "expected a size of at most 48 bits"),
    ("host mprotect rwx 0 0", 15, "expected none, ro or rw, found 'rwx'"),
    ("host munmap 0", 14, "expected a size"),
    ("host mmap 0 much", 13, "expected a size, decimal or hex with 0x, found 'much'"),
    ("host age", 9, "expected an address"),
    ("host dirty-log", 15, "expected on, off, get or clear"),
    ("host dirty-log maybe", 16, "expected on, off, get or clear, found 'maybe'"),
    ("host dirty-log get 1", 19, "expected the end of the line"),
    ("host dirty-log clear 0", 23, "expected a size"),
    ("host slot", 10, "expected delete, add, add-readonly or move"),
    ("host slot move", 15, "expected an address"),
    ("host slot remove", 11, "expected delete, add, add-readonly or move, found 'remove'"),
    ("guest", 6, "expected fetch or an instruction, found the end of the line"),
    ("guest fetch", 12, "expected an address"),
    ("guest fetch 4 5", 15, "expected x0=VALUE or the end of the line, found '5'"),
    (
      "guest nop", 7,
      "expected fetch or an instruction of docs/scenario.md such as ldrb, found 'nop'"
    ),
    ("guest ldrsw", 12, "expected ldrsw x0,[ADDRESS], found the end of the line"),
    ("guest ldrsw w0,[0]", 13, "expected ldrsw x0,[ADDRESS], found 'w0,[0]'"),
    ("guest str w1,[0]", 11, "expected str w0,[ADDRESS], str x0,[ADDRESS], str xzr,[ADDRESS]"),
    ("guest ldr w0, [x1]", 16, "expected an address, decimal or hex with 0x, found 'x1'"),
    ("guest stp w0, w2, [2]", 20, "expected an address that is a multiple of 4, found '2'"),
    ("guest strb w0, [0], #2", 18, "or strb w0,[ADDRESS]!, found '],#2'"),
    ("guest strb w0, [0,x4]", 18, "or strb w0,[ADDRESS]!, found ',x4]'"),
    ("guest ldr w0,  [0]", 15, "or ldr q0,[ADDRESS], found one more space"),
    ("guest ldr w0, ", 15, "or ldr q0,[ADDRESS], found the end of the line"),
    ("guest ldr w0,", 11, "or ldr q0,[ADDRESS], found 'w0,'"),
    ("guest ldr w0 ,[0]", 11, "or ldr q0,[ADDRESS], found 'w0'"),
    ("guest ldr w0, [ 0]", 16, "expected an address, decimal or hex with 0x, found nothing"),
    ("guest ldr w0, x0=1", 11, "or ldr q0,[ADDRESS], found 'w0,x0=1'"),
    ("guest ldr w0, [0] ", 19, "expected x0=VALUE or the end of the line, found the end"),
    ("guest fetch 0, x0=1", 13, "expected an address, decimal or hex with 0x, found '0,'"),
    ("guest ldr w0,[]", 15, "expected an address, decimal or hex with 0x, found nothing"),
    ("guest ldr w0,[x1]", 15, "expected an address, decimal or hex with 0x, found 'x1'"),
    ("guest ldr w0,[0", 16, "expected the end of ldr w0,[ADDRESS], found nothing"),
    ("guest ldr w0,[0],#4", 16, "expected the end of ldr w0,[ADDRESS], found '],#4'"),
    ("guest ldrb w0,[0,x4]", 17, "or ldrb w0,[ADDRESS]!, found ',x4]'"),
    ("guest ldr w0,[0x40000002]", 15, "expected an address that is a multiple of 4"),
    ("guest ldr q0,[0x40000008]", 15, "expected an address that is a multiple of 16"),
    ("guest ldr w0,[0x10000000000000000]", 15, "expected an address of at most 64 bits"),
    ("guest ldr w0,[0] x1=2", 18, "expected x0=VALUE or the end of the line, found 'x1=2'"),
    ("guest ldr w0,[0] x0=", 21, "expected a value, decimal or hex with 0x, found nothing"),
    ("guest ldr w0,[0] x0=w", 21, "expected a value, decimal or hex with 0x, found 'w'"),
    ("guest ldr w0,[0] x0=1 x0=1", 22, "expected the end of the line, found ' x0=1'"),
    ("host fork\r", 10, "found a carriage return: lines end with a newline alone"),
    ("host\tfork", 5, "found a tab: words have one space between them"),
    ("host fork\nhost ksm", 10, "expected printable ASCII, found byte 0xa"),
    ("host f\u{f6}rk", 7, "expected printable ASCII, found byte 0xc3"),
    ("host \u{0}", 6, "expected printable ASCII, found byte 0x0"),
  ]

  @Test(arguments: badSteps)
  func badStep(text: String, column: Int, message: String) throws {
    let error = try #require(
      #expect(throws: ScenarioError.self) { try Step(parsing: text, line: 12) })
    #expect(error.line == 12)
    #expect(error.column == column, "\(error)")
    #expect(error.message.contains(message), "\(error)")
    #expect(error.description == "12:\(error.column): \(error.message)")
    // A whole text with the line has the same error, if the line is a step at all.
    guard !text.isEmpty, !text.hasPrefix("#"), !text.utf8.contains(UInt8(ascii: "\n")) else {
      return
    }
    let whole = #expect(throws: ScenarioError.self) {
      try Recording(parsing: "machine cpu=max\n\n\(text)\n")
    }
    #expect(whole == ScenarioError(line: 3, column: error.column, message: error.message))
  }

  @Test(arguments: [
    ("guest fetch 0", 1, "expected machine, found 'guest'"),
    (
      "machine", 8, "expected kernel=, cpu=, granule=, ipa=, backing=, memory=, dirty-log= or code="
    ),
    ("machine cpu", 9, "expected kernel=, cpu=, granule="),
    ("machine kernel=6.2", 16, "expected 5.10, 6.1, 6.12 or 7.3, found '6.2'"),
    ("machine colour=red", 9, "or code=, found 'colour=red'"),
    ("machine =4", 9, "or code=, found '=4'"),
    ("machine cpu=", 13, "expected cortex-a72, cortex-a76 or max, found nothing"),
    ("machine cpu=cortex-a53", 13, "expected cortex-a72, cortex-a76 or max, found 'cortex-a53'"),
    ("machine granule=8K", 17, "expected 4K, 16K or 64K, found '8K'"),
    ("machine granule=4\u{212a}", 18, "expected printable ASCII"),
    ("machine ipa=31", 13, "expected a number of bits, 32 to 48, found '31'"),
    ("machine ipa=49", 13, "32 to 48, found '49'"),
    ("machine ipa=0x28", 13, "32 to 48, found '0x28'"),
    ("machine ipa=44", 13, "expected at most the 40 bits of cortex-a76, found '44'"),
    ("machine ipa=48 cpu=cortex-a72", 13, "expected at most the 44 bits of cortex-a72"),
    ("machine memory=64", 16, "expected 4M to 1024M, found '64'"),
    ("machine memory=64m", 16, "expected 4M to 1024M, found '64m'"),
    ("machine memory=M", 16, "expected MiB with an M, 4 to 1024, found nothing"),
    ("machine memory=3M", 16, "expected MiB with an M, 4 to 1024, found '3'"),
    ("machine memory=1025M", 16, "4 to 1024, found '1025'"),
    ("machine memory=99999999999999999999M", 16, "4 to 1024"),
    ("machine backing=page", 17, "expected anonymous, huge, hugetlb, memfd or file, found 'page'"),
    ("machine dirty-log=automatic", 19, "expected manual or initially-set, found 'automatic'"),
    ("machine code=here", 14, "expected an address"),
    ("machine code=0x40000002", 14, "expected a multiple of 4 in 0x40000000 to"),
    ("machine code=0x44000000", 14, "or 0x80000000 to 0x800007f8, found '0x44000000'"),
    ("machine code=0x800007fc", 14, "expected a multiple of 4 in"),
    ("machine code=0xfffffffffffffffc", 14, "expected a multiple of 4 in"),
    ("machine cpu=max ipa=40 cpu=max", 24, "cpu= stands here a second time"),
    ("machine cpu=max  ipa=40", 17, "found one more space"),
    ("machine cpu=max ", 17, "or code=, found the end of the line"),
    ("machines cpu=max", 1, "expected machine, found 'machines'"),
  ])
  func badMachine(text: String, column: Int, message: String) throws {
    let error = try #require(
      #expect(throws: ScenarioError.self) { try MachineDescription(parsing: text, line: 2) })
    #expect(error.line == 2)
    #expect(error.column == column, "\(error)")
    #expect(error.message.contains(message), "\(error)")
    let whole = #expect(throws: ScenarioError.self) { try Recording(parsing: "#\n\(text)") }
    #expect(whole == error)
  }

  @Test(arguments: [
    ("", 1, 1, "expected machine, found the end of the text"),
    ("# nothing\n\n", 3, 1, "expected machine, found the end of the text"),
    ("  result 0\n", 1, 1, "expected a step above, which this was seen of"),
    ("machine cpu=max\n  result 0\n", 2, 1, "expected a step above"),
    ("machine cpu=max\nhost fork\n\n  result 0\n", 4, 1, "expected a step above"),
    ("machine cpu=max\nhost fork\n# no\n  result 0\n", 4, 1, "expected a step above"),
    ("machine cpu=max\nhost fork\n  \n", 3, 1, "expected an observation behind the two spaces"),
    ("machine cpu=max\nhost fork\n result 0\n", 3, 1, "expected guest or host"),
    ("machine cpu=max\n\nmachine cpu=max\n", 3, 1, "line 1 has said what the machine is"),
    ("machine cpu=max\nmachine\n", 2, 1, "expected guest or host, found 'machine'"),
    ("machine cpu=max\r\nhost fork\r\n", 1, 16, "found a carriage return"),
  ])
  func badText(text: String, line: Int, column: Int, message: String) throws {
    let error = try #require(
      #expect(throws: ScenarioError.self) { try Recording(parsing: text) })
    #expect(error.line == line)
    #expect(error.column == column)
    #expect(error.message.contains(message), "\(error)")
  }

  @Test func scenarioHasNoObservations() throws {
    let text = "machine cpu=max\n# one\nhost fork\nhost end-fork\n  result 0\n"
    #expect(try Recording(parsing: text).steps.map(\.step) == [.host(.fork), .host(.endFork)])
    let error = #expect(throws: ScenarioError.self) { try Scenario(parsing: text) }
    #expect(error?.line == 5)
    #expect(error?.message == "expected a step, found an observation: this is a recording")
  }

  @Test func lengthsAreBounded() throws {
    let digits = String(repeating: "0", count: Scenario.maximumLineLength - "host age 0x".count)
    #expect(try Step(parsing: "host age 0x\(digits)") == .host(.age(address: 0)))
    let long = #expect(throws: ScenarioError.self) { try Step(parsing: "host age 0x\(digits)0") }
    #expect(long?.column == 255)
    #expect(long?.message == "expected the end of the line: it has at most 254 bytes")
    for line in ["#", "  "] {
      let text = line + String(repeating: "x", count: 254)
      let error = #expect(throws: ScenarioError.self) {
        try Recording(parsing: "machine cpu=max\nhost fork\n\(text)\n")
      }
      #expect(error?.line == 3)
      #expect(error?.column == 255)
    }
    let huge = #expect(throws: ScenarioError.self) {
      try Recording(parsing: String(repeating: "#\n", count: Scenario.maximumSize / 2 + 1))
    }
    #expect(huge?.message == "expected a text of at most 16 MiB")
  }

  @Test func lastLineMayLackItsNewline() throws {
    let text = "machine cpu=max\nhost fork\n  result 0"
    #expect(try Recording(parsing: text).description == text + "\n")
  }
}

/// Tests with random lines that are almost in the language. The lines are the same in each run.
@Suite struct FuzzTests {
  /// The lines of the recordings, without lines that differ only in their numbers.
  private static func seeds() throws -> [String] {
    var kinds: Set<String> = []
    var seeds: [String] = []
    for (_, recording) in try committedRecordings() {
      for line in recording.scenario.lines {
        guard line.content != .comment else { continue }
        if kinds.insert(line.text.replacing(/0x[0-9a-f]+|[0-9]+/, with: "N")).inserted {
          seeds.append(line.text)
        }
      }
    }
    return seeds
  }

  private func mutate(
    _ line: String, with seeds: [String], _ generator: inout SplitMix64
  ) -> String {
    var bytes = Array(line.utf8)
    for _ in 0..<Int.random(in: 1...3, using: &generator) {
      let place = Int.random(in: 0...bytes.count, using: &generator)
      let other = Array(seeds.randomElement(using: &generator)!.utf8)
      let token = Self.tokens.randomElement(using: &generator)!
      switch Int.random(in: 0..<8, using: &generator) {
      case 0: bytes.removeSubrange(place...)
      case 1: bytes.insert(.random(in: 0...255, using: &generator), at: place)
      case 2: bytes.insert(contentsOf: token.utf8, at: place)
      case 3:
        bytes = bytes[..<place] + other.suffix(Int.random(in: 0...other.count, using: &generator))
      case 4: bytes += bytes[place...]
      case 5 where place < bytes.count: bytes.remove(at: place)
      case 6 where place < bytes.count: bytes[place] = .random(in: 0x20...0x7e, using: &generator)
      case 7 where place < bytes.count:
        bytes[place] ^= 1 << UInt8.random(in: 0..<8, using: &generator)
      default: break
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static let tokens = [
    " ", "  ", ", ", "=", "x0=", "0x", "[", "]", ",", "#", "\n", "\r\n", "0",
    "18446744073709551615",
    "0xffffffffffffffff", "00000000000000000000", "\u{212a}", "e\u{301}", "\u{0}", "-", "M", "K",
  ]

  /// The parts of a line that determine its meaning: numbers as values, no space after a comma, and x0 only if it is
  /// set.
  private func normalized(_ line: String) -> [String] {
    var parts: [String] = []
    var word = ""
    func number(_ text: String) -> String {
      let value = text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text)
      return value.map { "\($0)" } ?? text
    }
    for character in line.replacing(", ", with: ",") {
      if " ,[]=".contains(character) {
        parts += [number(word), String(character)]
        word = ""
      } else {
        word.append(character)
      }
    }
    parts.append(number(word))
    return parts.suffix(4) == [" ", "x0", "=", "0"] ? parts.dropLast(4) : parts
  }

  @Test func mutatedLinesAreReadExactlyOrRefused() throws {
    let seeds = try Self.seeds()
    #expect(seeds.count >= 80)
    var generator = SplitMix64(seed: 1)
    var steps = 0
    var machines = 0
    for _ in 0..<50_000 {
      let line = mutate(seeds.randomElement(using: &generator)!, with: seeds, &generator)
      do throws(ScenarioError) {
        let step = try Step(parsing: line)
        steps += 1
        #expect(try Step(parsing: step.description) == step, "\(line)")
        #expect(normalized(step.description) == normalized(line), "\(line)")
      } catch {
        #expect((1...line.utf8.count + 1).contains(error.column), "\(line): \(error)")
        #expect(!error.message.isEmpty)
      }
      if let machine = try? MachineDescription(parsing: line) {
        machines += 1
        #expect(try MachineDescription(parsing: machine.description) == machine, "\(line)")
      }
    }
    // Enough mutations must be valid for the test to prove something.
    #expect(steps >= 1_500 && machines >= 50, "\(steps) steps, \(machines) machines")
  }

  @Test func mutatedTextsAreReadExactlyOrRefused() throws {
    let seeds = try Self.seeds()
    let text = try recordingText("facts-a76-page")
    let start = text.split(separator: "\n").prefix(40)
    var generator = SplitMix64(seed: 2)
    var accepted = 0
    for _ in 0..<2_000 {
      var lines = start.map(String.init)
      let index = lines.indices.randomElement(using: &generator)!
      lines[index] = mutate(lines[index], with: seeds, &generator)
      let text = lines.joined(separator: "\n") + "\n"
      do throws(ScenarioError) {
        let recording = try Recording(parsing: text)
        accepted += 1
        #expect(Array(recording.description.utf8) == Array(text.utf8))
      } catch {
        #expect(error.line >= 1 && error.column >= 1)
      }
    }
    #expect(accepted >= 200, "\(accepted)")
  }
}
