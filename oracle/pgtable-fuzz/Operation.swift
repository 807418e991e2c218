import Stage2Sim

/// One call, with its arguments, of a function of pgtable.c or of the hook's walk.
struct Operation: Equatable {
  /// The kinds, in the order of `enum pgtable_kind`.
  enum Kind: UInt32, CaseIterable {
    case map, setOwner, unmap, writeProtect, makeYoung, makeOld, isYoung, relax, flush, leaf, hide,
      seek, destroy
  }

  var kind: Kind
  var address: UInt64 = 0
  var size: UInt64 = 0
  var physical: UInt64 = 0
  var protection: Protection = []
  /// The owner, or the hidden byte.
  var byte: UInt8 = 0
  var canAllocate = true

  init(_ kind: Kind, address: UInt64 = 0) {
    self.kind = kind
    self.address = address
  }
}

/// The result of an operation.
struct Outcome: Equatable {
  /// An errno, or 0 if there was none.
  var error: Int32 = 0
  /// The level of a leaf.
  var level = 0
  /// An entry, a truth value or a byte.
  var value: UInt64 = 0
  var protection: Protection = []
}

extension Operation.Kind {
  enum Argument { case address, size, physical, protection, byte, canAllocate }

  var name: String {
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
    }
  }

  /// The arguments, in the order of the text.
  var arguments: [Argument] {
    switch self {
    case .map: [.address, .size, .physical, .protection, .canAllocate]
    case .setOwner: [.address, .size, .byte, .canAllocate]
    case .unmap, .writeProtect, .flush: [.address, .size]
    case .makeYoung, .makeOld, .isYoung, .leaf, .seek: [.address]
    case .relax: [.address, .protection]
    case .hide: [.address, .byte]
    case .destroy: []
    }
  }
}

/// An error in the text of a case.
struct CaseError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

extension Operation: CustomStringConvertible {
  /// The text in a case, such as `map 0x40000000 0x1000 0x80000000 rwx`.
  var description: String {
    let words = kind.arguments.compactMap { argument -> String? in
      switch argument {
      case .address: hex(address)
      case .size: hex(size)
      case .physical: hex(physical)
      case .protection: protection.letters
      case .byte: hex(UInt64(byte))
      case .canAllocate: canAllocate ? nil : "no-memory"
      }
    }
    return ([kind.name] + words).joined(separator: " ")
  }

  init(_ text: String) throws(CaseError) {
    var words = text.split(separator: " ")[...]
    guard let name = words.popFirst(), let kind = Kind.allCases.first(where: { $0.name == name })
    else { throw CaseError("'\(text)' is not an operation") }
    self.init(kind)
    for argument in kind.arguments {
      if argument == .canAllocate {
        canAllocate = words.isEmpty
        guard canAllocate || words.popFirst() == "no-memory" else {
          throw CaseError("'\(text)' has too many arguments for \(name)")
        }
        continue
      }
      guard let word = words.popFirst() else {
        throw CaseError("'\(text)' lacks an argument of \(name)")
      }
      switch argument {
      case .address: address = try Self.number(word)
      case .size: size = try Self.number(word)
      case .physical: physical = try Self.number(word)
      case .protection: protection = try Protection(letters: word)
      case .byte: byte = UInt8(truncatingIfNeeded: try Self.number(word))
      case .canAllocate: break
      }
    }
    guard words.isEmpty else { throw CaseError("'\(text)' has too many arguments for \(name)") }
  }

  private static func number(_ word: Substring) throws(CaseError) -> UInt64 {
    guard word.hasPrefix("0x"), let number = UInt64(word.dropFirst(2), radix: 16) else {
      throw CaseError("'\(word)' is not a number: write it as 0x1f")
    }
    return number
  }
}

extension Protection {
  private static let names: [(Character, Protection)] = [
    ("r", .read), ("w", .write), ("x", .execute), ("d", .device), ("0", .software0),
    ("1", .software1), ("2", .software2), ("3", .software3),
  ]

  /// The letters of `rwxd0123` that are set, or `-` if none is set.
  var letters: String {
    isEmpty ? "-" : String(Self.names.filter { contains($0.1) }.map(\.0))
  }

  init(letters: Substring) throws(CaseError) {
    self = []
    guard letters != "-" else { return }
    for letter in letters {
      guard let name = Self.names.first(where: { $0.0 == letter }) else {
        throw CaseError("'\(letters)' is not a protection: write '-' or some letters of 'rwxd0123'")
      }
      insert(name.1)
    }
  }
}

func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
