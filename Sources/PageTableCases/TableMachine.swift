import Stage2Sim

/// The properties of a machine that determine its table.
package struct TableMachine: Equatable, Sendable {
  package var kernel = KernelVersion.linux61
  package var granule: Granule
  package var ipaBits = 40
  package var hasFWB = false
  /// Whether the CPU has FEAT_XNX. The code asks in 7.3 only.
  package var hasXNX = true
  /// Whether the CPU has FEAT_TLBIRANGE. The code asks in 6.12 and 7.3 only.
  package var hasTLBRange = false
  /// Whether physical addresses have 52 bits: FEAT_LPA2, or FEAT_LPA with pages of 64 KiB, in 6.12 and 7.3.
  package var has52Bits = false

  package init(
    kernel: KernelVersion = .linux61, granule: Granule, ipaBits: Int = 40, hasFWB: Bool = false
  ) {
    self.kernel = kernel
    self.granule = granule
    self.ipaBits = ipaBits
    self.hasFWB = hasFWB
  }

  /// An empty table.
  package var table: Stage2PageTable {
    Stage2PageTable(
      granule: granule, ipaBits: ipaBits, hasFWB: hasFWB, hasXNX: hasXNX,
      hasTLBRange: hasTLBRange, physicalAddressBits: has52Bits ? 52 : 48, kernel: kernel)
  }
}

extension TableMachine: CustomStringConvertible {
  package var description: String {
    // A property that 6.1 does not have is left out, so that the cases of 6.1 stay as they are.
    "machine granule=\(granule) ipa=\(ipaBits) fwb=\(hasFWB ? "yes" : "no")"
      + (hasXNX ? "" : " xnx=no") + (hasTLBRange ? " tlbrange=yes" : "")
      + (has52Bits ? " pa=52" : "")
  }

  /// The first lines of a case. Cases of 6.1 have no line for the version.
  package var header: [String] {
    (kernel == .linux61 ? [] : ["kernel \(kernel.rawValue)"]) + ["\(self)"]
  }

  /// Reads the line `machine` of a case.
  ///
  /// - Parameters:
  ///   - text: The line.
  ///   - kernel: The version of the case.
  ///   - line: The number of the line, for an error.
  package init(
    parsing text: String, kernel: KernelVersion, line: Int = 1
  ) throws(CaseError) {
    let example = "write a line such as 'machine granule=4K ipa=40 fwb=no'"
    func error(_ message: String) -> CaseError { CaseError(message, line: line) }
    let words = text.split(separator: " ")
    guard words.first == "machine" else {
      throw error("expected the line 'machine', found '\(text)': \(example)")
    }
    for word in words.dropFirst() {
      let key = word.prefix { $0 != "=" }
      if ["cpu", "backing", "memory", "dirty-log", "code", "kernel"].contains(key) {
        throw error(
          "'\(word)' is for the machine of a scenario; a case has a page table only: \(example)")
      }
      guard ["granule", "ipa", "fwb", "xnx", "tlbrange", "pa"].contains(key) else {
        throw error("'\(word)' is no property of a table: \(example)")
      }
    }
    guard words.count >= 4, words[1].hasPrefix("granule="), words[2].hasPrefix("ipa="),
      words[3].hasPrefix("fwb=")
    else {
      throw error("expected granule=, ipa= and fwb= in this order, found '\(text)': \(example)")
    }
    guard let granule = Granule(String(words[1].dropFirst(8))) else {
      throw error("'\(words[1])' is not a page size: write granule=4K, granule=16K or granule=64K")
    }
    guard words[3] == "fwb=yes" || words[3] == "fwb=no" else {
      throw error(
        "'\(words[3])' does not tell whether the CPU has FEAT_S2FWB: write fwb=yes or fwb=no")
    }
    let features = words.dropFirst(4)
    for feature in features where !["xnx=no", "tlbrange=yes", "pa=52"].contains(feature) {
      throw error(
        "'\(feature)' is not known behind fwb=: write xnx=no, tlbrange=yes or pa=52, or nothing")
    }
    let has52Bits = features.contains("pa=52")
    guard !has52Bits || kernel.ipaSizes.upperBound == 52 else {
      throw error(
        "Linux \(kernel.rawValue) has no 52 bits: remove pa=52, or take Linux 6.12 or 7.3")
    }
    let sizes = kernel.ipaSizes.lowerBound...(has52Bits ? 52 : 48)
    guard let ipaBits = Int(words[2].dropFirst(4)), sizes.contains(ipaBits) else {
      throw error(
        "'\(words[2])' is not a size of this table: write \(sizes.lowerBound) to \(sizes.upperBound) bits\(has52Bits ? "" : ", and pa=52 for more in 6.12 and 7.3")"
      )
    }
    self.init(
      kernel: kernel, granule: granule, ipaBits: ipaBits, hasFWB: words[3] == "fwb=yes")
    hasXNX = !features.contains("xnx=no")
    hasTLBRange = features.contains("tlbrange=yes")
    self.has52Bits = has52Bits
  }
}

/// An error in a line of a case.
package struct CaseError: Error, Equatable, CustomStringConvertible {
  /// The line, from 1.
  package let line: Int
  /// The mistake, and the next step.
  package let message: String

  package init(_ message: String, line: Int) {
    self.line = line
    self.message = message
  }

  /// `3: …`. The name of a file can precede it.
  package var description: String { "\(line): \(message)" }
}
