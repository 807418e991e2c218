import Scenarios
import Stage2Sim

/// Letters for the frames of leaves, in the order in which they were first seen.
///
/// Linux 5.10 keeps the address of a page in an entry that became invalid. The page can be freed, and the host's allocator decides which
/// page gets the frame next. No letter depends on that decision: an invalid entry has the letters that a valid entry of the same guest
/// address gave to the frame, as long as the frame is in use. Otherwise, it has new letters in each step.
package struct FrameLetters {
  private struct Name {
    var letters: String
    /// The guest addresses of the leaves with the frame.
    var addresses: [Range<IntermediatePhysicalAddress>]
    /// Whether only invalid entries had the frame. Such a name ends with the step.
    var isOfInvalidEntry: Bool

    func isSeen(at leaf: Range<IntermediatePhysicalAddress>) -> Bool {
      addresses.contains { $0.overlaps(leaf) }
    }
  }

  private var names: [PhysicalAddress: [Name]] = [:]
  private var count = 0
  /// The frames that got their letters since the last ``forget(onlyNew:where:)``.
  private var new: [PhysicalAddress] = []

  package init() {}

  /// A leaf in the form of a recording.
  ///
  /// - Parameters:
  ///   - leaf: The leaf.
  ///   - address: A guest address that the leaf is for.
  ///   - granule: The size of pages and tables.
  ///   - counts: The reference counts of the tables on the way to the leaf.
  package mutating func observed(
    _ leaf: Leaf, for address: IntermediatePhysicalAddress, _ granule: Granule, counts: [Int]
  ) -> ObservedLeaf {
    let frame = leaf.descriptor.outputAddress(granule)
    let size = granule.size(level: leaf.level)
    let first = address.aligned(to: size)
    return ObservedLeaf(
      level: leaf.level, attributes: leaf.descriptor.rawValue & ~frame.rawValue,
      frame: frame == 0
        ? nil
        : letters(for: frame, of: first..<first + size, isValid: leaf.descriptor.isValid),
      counts: counts)
  }

  /// The letters of the frame of a leaf: A to Z, AA, AB and so on.
  ///
  /// - Parameters:
  ///   - frame: The output address of the leaf.
  ///   - leaf: The guest addresses that the leaf is for.
  ///   - isValid: Whether the leaf is valid.
  package mutating func letters(
    for frame: PhysicalAddress, of leaf: Range<IntermediatePhysicalAddress>, isValid: Bool
  ) -> String {
    let known = names[frame, default: []].firstIndex {
      isValid ? !$0.isOfInvalidEntry : $0.isSeen(at: leaf)
    }
    if let known {
      let name = names[frame]![known]
      if !name.addresses.contains(leaf) { names[frame]![known].addresses.append(leaf) }
      return name.letters
    }
    let letters = nextLetters()
    names[frame, default: []].append(
      Name(letters: letters, addresses: [leaf], isOfInvalidEntry: !isValid))
    new.append(frame)
    return letters
  }

  private mutating func nextLetters() -> String {
    count += 1
    var number = count
    var text = ""
    while number > 0 {
      number -= 1
      text = "\(UnicodeScalar(UInt8(ascii: "A") + UInt8(number % 26)))\(text)"
      number /= 26
    }
    return text
  }

  /// Forgets the letters of free frames, and those of invalid entries. A frame that is freed and allocated again gets new letters.
  ///
  /// - Parameters:
  ///   - onlyNew: Whether no frame was freed since the last call. Then only the letters that are new are tested, so that
  ///     a step does not take more time because many frames have letters.
  ///   - isFree: Whether a frame is free.
  package mutating func forget(onlyNew: Bool, where isFree: (PhysicalAddress) -> Bool) {
    for frame in onlyNew ? new : Array(names.keys) {
      names[frame]?.removeAll(where: \.isOfInvalidEntry)
      if names[frame]?.isEmpty == true || isFree(frame) { names[frame] = nil }
    }
    new.removeAll(keepingCapacity: true)
  }
}
