import Stage2Sim
import Testing
import VirtWalkerDevice

struct FrameLettersTests {
  private static let page: PhysicalAddress = 0x2_0001_0000
  private static let other: PhysicalAddress = 0x2_0002_0000
  private static let first: Range<IntermediatePhysicalAddress> = 0x4000_0000..<0x4000_1000
  private static let second: Range<IntermediatePhysicalAddress> = 0x4000_1000..<0x4000_2000
  private static let block: Range<IntermediatePhysicalAddress> = 0x4000_0000..<0x4020_0000

  @Test("A frame in use has its letters in each step, at each address")
  func framesInUse() {
    var letters = FrameLetters()
    #expect(letters.letters(for: Self.page, of: Self.first, isValid: true) == "A")
    #expect(letters.letters(for: Self.other, of: Self.second, isValid: true) == "B")
    letters.forget(onlyNew: false) { _ in false }
    #expect(letters.letters(for: Self.page, of: Self.second, isValid: true) == "A")
  }

  @Test("After the 26th frame come two letters")
  func manyFrames() {
    var letters = FrameLetters()
    let names = (0..<28).map {
      letters.letters(for: Self.page + 0x1000 * UInt64($0), of: Self.first, isValid: true)
    }
    #expect(names.suffix(3) == ["Z", "AA", "AB"])
  }

  @Test("A frame that was freed has new letters", arguments: [false, true])
  func freedFrames(onlyNew: Bool) {
    var letters = FrameLetters()
    #expect(letters.letters(for: Self.page, of: Self.first, isValid: true) == "A")
    letters.forget(onlyNew: onlyNew) { $0 == Self.page }
    #expect(letters.letters(for: Self.page, of: Self.first, isValid: true) == "B")
  }

  @Test("An invalid entry keeps the letters of the valid entry of its addresses")
  func entriesThatBecameInvalid() {
    var letters = FrameLetters()
    #expect(letters.letters(for: Self.page, of: Self.block, isValid: true) == "A")
    letters.forget(onlyNew: false) { _ in false }
    #expect(letters.letters(for: Self.page, of: Self.block, isValid: false) == "A")
    #expect(letters.letters(for: Self.page, of: Self.first, isValid: false) == "A")
  }

  @Test("An invalid entry does not show that another address has its old frame now")
  func invalidEntriesOfOtherAddresses() {
    var letters = FrameLetters()
    #expect(letters.letters(for: Self.page, of: Self.first, isValid: true) == "A")
    letters.forget(onlyNew: false) { _ in true }
    #expect(letters.letters(for: Self.page, of: Self.second, isValid: true) == "B")
    letters.forget(onlyNew: false) { _ in false }
    #expect(letters.letters(for: Self.page, of: Self.first, isValid: false) == "C")
    #expect(letters.letters(for: Self.page, of: Self.second, isValid: false) == "B")
  }

  @Test("The letters of a frame that only invalid entries have end with the step")
  func framesOfInvalidEntries() {
    var letters = FrameLetters()
    #expect(letters.letters(for: Self.page, of: Self.first, isValid: false) == "A")
    #expect(letters.letters(for: Self.page, of: Self.block, isValid: false) == "A")
    #expect(letters.letters(for: Self.page, of: Self.first, isValid: true) == "B")
    letters.forget(onlyNew: true) { _ in false }
    #expect(letters.letters(for: Self.page, of: Self.first, isValid: false) == "B")
    #expect(letters.letters(for: Self.other, of: Self.second, isValid: false) == "C")
    letters.forget(onlyNew: true) { _ in false }
    #expect(letters.letters(for: Self.other, of: Self.second, isValid: false) == "D")
  }
}
