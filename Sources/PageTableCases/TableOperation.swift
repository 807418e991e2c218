import Stage2Sim

/// One call, with its arguments, of a function of pgtable.c or of the hook's walk.
package struct TableOperation: Equatable, Sendable {
  /// The kinds, in the order of `enum pgtable_kind`.
  package enum Kind: UInt32, CaseIterable {
    case map, setOwner, unmap, writeProtect, makeYoung, makeOld, isYoung, relax, flush, leaf, hide,
      seek, destroy, annotate, testYoung, split, createUnlinked, freeUnlinked, destroyRange
  }

  package var kind: Kind
  package var address: UInt64 = 0
  package var size: UInt64 = 0
  /// A physical address, or an annotation.
  package var physical: UInt64 = 0
  package var protection: Protection = []
  /// The owner, the hidden byte, the type of an annotation, a level, or whether pages become old.
  package var byte: UInt8 = 0
  /// The pages in a cache, or whether an unlinked table is to have pages only.
  package var count: UInt32 = 0
  package var flags: WalkFlags = []
  package var canAllocate = true

  package init(_ kind: Kind, address: UInt64 = 0) {
    self.kind = kind
    self.address = address
  }
}

/// The result of an operation.
package struct TableOutcome: Equatable, Sendable {
  /// An errno, or 0 if there was none.
  package var error: Int32 = 0
  /// The level of a leaf.
  package var level = 0
  /// An entry, a truth value or a byte.
  package var value: UInt64 = 0
  package var protection: Protection = []

  package init(
    error: Int32 = 0, level: Int = 0, value: UInt64 = 0, protection: Protection = []
  ) {
    self.error = error
    self.level = level
    self.value = value
    self.protection = protection
  }
}

extension TableOperation.Kind {
  package enum Argument {
    case address, size, physical, protection, byte, count, flags, canAllocate
  }

  package var name: String {
    switch self {
    case .map: "map"
    case .setOwner: "set-owner"
    case .unmap: "unmap"
    case .writeProtect: "write-protect"
    case .makeYoung: "make-young"
    case .makeOld: "make-old"
    case .isYoung: "is-young"
    case .relax: "relax"
    case .flush: "flush"
    case .leaf: "leaf"
    case .hide: "hide"
    case .seek: "seek"
    case .destroy: "destroy"
    case .annotate: "annotate"
    case .testYoung: "test-young"
    case .split: "split"
    case .createUnlinked: "create-unlinked"
    case .freeUnlinked: "free-unlinked"
    case .destroyRange: "destroy-range"
    }
  }

  /// Whether a version of the kernel has the function.
  package func isAvailable(in kernel: KernelVersion) -> Bool {
    switch self {
    case .setOwner: kernel == .linux61 || kernel == .linux612
    case .makeOld, .isYoung: kernel == .linux510 || kernel == .linux61
    case .testYoung, .split, .createUnlinked, .freeUnlinked:
      kernel == .linux612 || kernel == .linux73
    case .annotate, .destroyRange: kernel == .linux73
    case .map, .unmap, .writeProtect, .makeYoung, .relax, .flush, .leaf, .hide, .seek, .destroy:
      true
    }
  }

  /// Whether a version gives the walk of the function flags of its caller.
  package func hasFlags(in kernel: KernelVersion) -> Bool {
    switch self {
    case .map: kernel == .linux612 || kernel == .linux73
    case .relax, .makeYoung: kernel == .linux73
    default: false
    }
  }

  /// The arguments, in the order of the text.
  package var arguments: [Argument] {
    switch self {
    case .map: [.address, .size, .physical, .protection, .flags, .canAllocate]
    case .setOwner: [.address, .size, .byte, .canAllocate]
    case .annotate: [.address, .size, .byte, .physical, .canAllocate]
    case .unmap, .writeProtect, .flush, .destroyRange: [.address, .size]
    case .makeOld, .isYoung, .leaf, .seek: [.address]
    case .makeYoung: [.address, .flags]
    case .testYoung: [.address, .size, .byte]
    case .relax: [.address, .protection, .flags]
    case .hide: [.address, .byte]
    case .split: [.address, .size, .count]
    case .createUnlinked: [.physical, .byte, .protection, .count]
    case .destroy, .freeUnlinked: []
    }
  }
}

extension TableOperation: CustomStringConvertible {
  /// The text in a case, such as `map 0x40000000 0x1000 0x80000000 rwx`.
  package var description: String {
    let words = kind.arguments.compactMap { argument -> String? in
      switch argument {
      case .address: hex(address)
      case .size: hex(size)
      case .physical: hex(physical)
      case .protection: protection.letters
      case .byte: hex(UInt64(byte))
      case .count: hex(UInt64(count))
      case .flags: flags.isEmpty ? nil : flags.words
      case .canAllocate: canAllocate ? nil : "no-memory"
      }
    }
    return ([kind.name] + words).joined(separator: " ")
  }

  /// Reads the line of an operation.
  ///
  /// - Parameters:
  ///   - text: The line.
  ///   - line: Its number, for an error.
  package init(parsing text: String, line: Int = 1) throws(CaseError) {
    var words = text.split(separator: " ")[...]
    guard let name = words.popFirst(), let kind = Kind.allCases.first(where: { $0.name == name })
    else {
      throw CaseError(
        "'\(text)' is not an operation: write \(Kind.allCases.map(\.name).joined(separator: ", "))",
        line: line)
    }
    self.init(kind)
    func tooMany() -> CaseError {
      CaseError(
        "'\(text)' has too many arguments for \(name): write \(kind.usage)", line: line)
    }
    for argument in kind.arguments {
      if argument == .flags {
        while let flag = words.first.flatMap(WalkFlags.init(word:)) {
          flags.insert(flag)
          words.removeFirst()
        }
        continue
      }
      if argument == .canAllocate {
        canAllocate = words.isEmpty
        guard canAllocate || words.popFirst() == "no-memory" else { throw tooMany() }
        continue
      }
      guard let word = words.popFirst() else {
        throw CaseError(
          "'\(text)' lacks an argument of \(name): write \(kind.usage)", line: line)
      }
      switch argument {
      case .address: address = try Self.number(word, line)
      case .size: size = try Self.number(word, line)
      case .physical: physical = try Self.number(word, line)
      case .protection: protection = try Protection(letters: word, line: line)
      case .byte: byte = try Self.number(word, line)
      case .count: count = try Self.number(word, line)
      case .flags, .canAllocate: break
      }
    }
    guard words.isEmpty else { throw tooMany() }
    guard kind != .createUnlinked || byte < Granule.lastLevel else {
      throw CaseError(
        "level \(byte) of '\(text)' has no entry that points to a table: write 0x0, 0x1 or 0x2",
        line: line)
    }
  }

  private static func number<Number: FixedWidthInteger>(
    _ word: Substring, _ line: Int
  ) throws(CaseError) -> Number {
    guard word.hasPrefix("0x"), word.utf8.dropFirst(2).first != UInt8(ascii: "+"),
      let number = Number(word.dropFirst(2), radix: 16)
    else {
      throw CaseError(
        "'\(word)' is not a number of at most \(Number.bitWidth) bits: write it as 0x1f", line: line
      )
    }
    return number
  }
}

extension TableOperation.Kind {
  /// The form of the operation's line.
  fileprivate var usage: String {
    let words = arguments.map { argument in
      switch argument {
      case .address: "ADDRESS"
      case .size: "SIZE"
      case .physical: self == .annotate ? "NOTE" : "PHYSICAL"
      case .protection: "PROTECTION"
      case .byte:
        switch self {
        case .setOwner: "OWNER"
        case .annotate: "TYPE"
        case .testYoung: "MAKE-OLD"
        case .createUnlinked: "LEVEL"
        default: "BYTE"
        }
      case .count: self == .split ? "PAGES" : "FORCE-PAGES"
      case .flags: "[FLAG]..."
      case .canAllocate: "[no-memory]"
      }
    }
    return "'\(([name] + words).joined(separator: " "))'"
  }
}

extension Protection {
  private static let names: [(Character, Protection)] = [
    ("r", .read), ("w", .write), ("x", .execute), ("p", .privilegedExecute),
    ("u", .unprivilegedExecute), ("d", .device), ("n", .normalNonCacheable), ("0", .software0),
    ("1", .software1), ("2", .software2), ("3", .software3),
  ]

  /// The letters of `rwxpudn0123` that are set, or `-` if none is set.
  package var letters: String {
    isEmpty ? "-" : String(Self.names.filter { contains($0.1) }.map(\.0))
  }

  package init(letters: Substring, line: Int) throws(CaseError) {
    self = []
    guard letters != "-" else { return }
    for letter in letters {
      guard let name = Self.names.first(where: { $0.0 == letter }) else {
        throw CaseError(
          "'\(letters)' is not a protection: write '-' or some letters of 'rwxpudn0123'", line: line
        )
      }
      insert(name.1)
    }
  }
}

extension WalkFlags {
  private static let names: [(String, WalkFlags)] = [
    ("shared", .shared), ("fault", .handleFault), ("ignore-eagain", .ignoreTryAgain),
  ]

  /// The names of the flags, with spaces between them.
  package var words: String { Self.names.filter { contains($0.1) }.map(\.0).joined(separator: " ") }

  /// The flag with a name.
  package init?(word: Substring) {
    guard let flag = Self.names.first(where: { $0.0 == word }) else { return nil }
    self = flag.1
  }
}

func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
