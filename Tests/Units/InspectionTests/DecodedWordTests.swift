import Stage2Sim
import Testing

@testable import Inspection

/// Tests of the meaning of registers and entries, field by field.
@Suite struct DecodedWordTests {
  private static let configuration = VirtualMachine.Configuration(
    backing: .anonymous, memorySize: 64 << 20)

  /// The fields of ESR_EL2 are at the bits that the accessors of the kernel read.
  @Test(arguments: [0x9300_0045, 0x93df_8045, 0x93c1_c00f, 0x92e5_8147] as [UInt64])
  func fieldsOfADataAbort(_ value: UInt64) throws {
    let syndrome = ExceptionSyndrome(rawValue: value)
    func field(_ name: String) throws -> UInt64 {
      try #require(RegisterField.dataAbort.first { $0.name == name }).value(in: value)
    }
    #expect(try field("EC") == syndrome.exceptionClass)
    #expect(try field("ISV") == (syndrome.isValid ? 1 : 0))
    #expect(1 << (try field("SAS")) == UInt64(syndrome.accessSize))
    #expect(try field("SSE") == (syndrome.isSignExtending ? 1 : 0))
    #expect(try field("SRT") == UInt64(syndrome.register))
    #expect(try field("SF") == (syndrome.is64Bit ? 1 : 0))
    #expect(try field("WnR") == (syndrome.isWrite ? 1 : 0))
    #expect(try field("DFSC") & 3 == UInt64(syndrome.faultLevel))
  }

  @Test(arguments: [
    RegisterField.dataAbort, RegisterField.instructionAbort, RegisterField.faultingPage,
  ])
  func fieldsHaveAllBits(_ fields: [RegisterField]) {
    #expect(fields.first?.bits.upperBound == 63)
    #expect(fields.last?.bits.lowerBound == 0)
    for (field, next) in zip(fields, fields.dropFirst()) {
      #expect(field.bits.lowerBound == next.bits.upperBound + 1)
    }
  }

  @Test func meaningsOfAnAbort() {
    let word = DecodedWord(ExceptionSyndrome(rawValue: 0x9300_0045))
    #expect(word.summary == "data abort, translation fault, level 1")
    let meanings = Dictionary(
      word.fields.map { ($0.name, $0.meaning) }, uniquingKeysWith: { first, _ in first })
    #expect(meanings["SAS"] == "1 byte")
    #expect(meanings["SRT"] == "register 0")
    #expect(meanings["WnR"] == "write")
    #expect(meanings["ISS2"] == "")
    let invalid = DecodedWord(ExceptionSyndrome(rawValue: 0x9200_0045))
    #expect(invalid.fields.first { $0.name == "SAS" }?.meaning == "")
  }

  /// Only the bits of a leaf, or of an invalid entry, are those of a byte.
  @Test func meaningsOfAnEntry() {
    func word(_ value: UInt64, level: Int) -> DecodedWord {
      let visit = TableVisit(
        level: level, table: 0x1_0000_0000, index: 0, descriptor: Stage2Descriptor(rawValue: value))
      return DecodedWord(visit, isLast: level == 3, on: Self.configuration)
    }
    let page = word(0x0208_0002_0040_07ff, level: 3)
    #expect(page.summary == "page of 4 KiB at 0x200400000, hidden byte 0x41 'A'")
    #expect(page.fields.filter(\.isOfByte).map(\.name) == ["software", "XN", "Contiguous", "DBM"])
    #expect(page.fields.first { $0.name == "S2AP" }?.meaning == "read and write")
    let table = word(0x1_0000_2003, level: 1)
    #expect(table.summary == "table at 0x100002000")
    #expect(table.fields.filter(\.isOfByte).isEmpty)
    #expect(table.fields.first { $0.name == "S2AP" }?.meaning == "")
    let invalid = word(0x0208_0000_0000_0000, level: 3)
    #expect(invalid.summary == "invalid, but not empty, hidden byte 0x41 'A'")
    #expect(invalid.fields.filter { !$0.meaning.isEmpty }.map(\.name) == ["valid"])
    #expect(word(0, level: 2).summary == "empty")
  }

  /// The index of each level is a part of the address.
  @Test func fieldsOfAnAddress() {
    let path = [(1, 1), (2, 3)].map { level, index in
      TableVisit(
        level: level, table: 0x1_0000_0000, index: index, descriptor: Stage2Descriptor(rawValue: 0))
    }
    let word = DecodedWord(0x4061_2345, walked: path, on: Self.configuration)
    #expect(word.fields.map(\.name) == ["level 1", "level 2", "offset"])
    #expect(word.fields.map(\.bits) == [30...39, 21...29, 0...20])
    #expect(word.fields.map(\.meaning) == ["index 1", "index 3", "byte 0x12345 of 2 MiB"])
  }
}
