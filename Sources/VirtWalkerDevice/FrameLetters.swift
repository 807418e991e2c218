import Stage2Sim

/// Letters for frames, in the order in which they were first seen.
package struct FrameLetters {
  private var known: [PhysicalAddress: String] = [:]
  private var count = 0
  /// The frames that got their letters since the last ``forget(onlyNew:where:)``.
  private var new: [PhysicalAddress] = []

  package init() {}

  /// The letters of a frame: A to Z, AA, AB and so on.
  package subscript(frame: PhysicalAddress) -> String {
    mutating get {
      if let text = known[frame] { return text }
      count += 1
      var number = count
      var text = ""
      while number > 0 {
        number -= 1
        text = "\(UnicodeScalar(UInt8(ascii: "A") + UInt8(number % 26)))\(text)"
        number /= 26
      }
      known[frame] = text
      new.append(frame)
      return text
    }
  }

  /// Forgets the letters of free frames. A frame that is freed and allocated again gets new letters.
  ///
  /// - Parameters:
  ///   - onlyNew: Whether no frame was freed since the last call. Then only the letters that are new are tested, so that
  ///     a step does not take more time because many frames have letters.
  ///   - isFree: Whether a frame is free.
  package mutating func forget(onlyNew: Bool, where isFree: (PhysicalAddress) -> Bool) {
    if onlyNew {
      for frame in new where isFree(frame) { known[frame] = nil }
    } else {
      known = known.filter { !isFree($0.key) }
    }
    new.removeAll(keepingCapacity: true)
  }
}
