/// An address in one of the address spaces of a machine.
///
/// Each space has a type of its own, so that an address of one space does not pass for an address of another. Such a type is
/// its number and nothing else: it is frozen, and its functions are inlined, in other modules too.
public protocol MachineAddress: RawRepresentable<UInt64>, Hashable, Sendable, Strideable,
  ExpressibleByIntegerLiteral, CustomStringConvertible
{
  /// The address with a number.
  init(rawValue: UInt64)
}

/// A virtual address of the guest: the input of its stage 1.
@frozen
public struct GuestVirtualAddress: MachineAddress {
  public let rawValue: UInt64

  @inlinable @inline(__always)
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The virtual address of an intermediate physical one in a guest whose stage 1 is off.
  @inlinable @inline(__always)
  public init(flat ipa: IntermediatePhysicalAddress) { rawValue = ipa.rawValue }
}

/// An intermediate physical address (IPA), which the guest takes for a physical one: the output of stage 1 and the input of
/// stage 2.
@frozen
public struct IntermediatePhysicalAddress: MachineAddress {
  public let rawValue: UInt64

  @inlinable @inline(__always)
  public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// A virtual address of the VMM, a process of the host.
@frozen
public struct HostVirtualAddress: MachineAddress {
  public let rawValue: UInt64

  @inlinable @inline(__always)
  public init(rawValue: UInt64) { self.rawValue = rawValue }
}

/// A physical address: the output of stage 2.
@frozen
public struct PhysicalAddress: MachineAddress {
  public let rawValue: UInt64

  @inlinable @inline(__always)
  public init(rawValue: UInt64) { self.rawValue = rawValue }
}

extension MachineAddress {
  /// The address with a number.
  @inlinable @inline(__always)
  public init(_ number: UInt64) { self.init(rawValue: number) }

  /// The address that a literal is.
  @inlinable @inline(__always)
  public init(integerLiteral number: UInt64) { self.init(rawValue: number) }

  /// `0x40000000`
  public var description: String { "0x\(hexadecimal(rawValue))" }

  @inlinable @inline(__always)
  public static func == (left: Self, right: Self) -> Bool { left.rawValue == right.rawValue }

  @inlinable @inline(__always)
  public static func != (left: Self, right: Self) -> Bool { left.rawValue != right.rawValue }

  @inlinable @inline(__always)
  public static func < (left: Self, right: Self) -> Bool { left.rawValue < right.rawValue }

  /// The number of bytes from this address to another one.
  @inlinable
  public func distance(to other: Self) -> Int {
    Int(bitPattern: UInt(other.rawValue &- rawValue))
  }

  /// The address that is a number of bytes behind this one, around the end of the 64-bit numbers.
  @inlinable
  public func advanced(by distance: Int) -> Self {
    Self(rawValue: rawValue &+ UInt64(bitPattern: Int64(distance)))
  }

  /// The address that is a number of bytes behind `address`.
  @inlinable @inline(__always)
  public static func + (address: Self, offset: UInt64) -> Self {
    Self(rawValue: address.rawValue + offset)
  }

  /// The same, around the end of the 64-bit numbers.
  @inlinable @inline(__always)
  public static func &+ (address: Self, offset: UInt64) -> Self {
    Self(rawValue: address.rawValue &+ offset)
  }

  /// Moves an address by a number of bytes.
  @inlinable @inline(__always)
  public static func += (address: inout Self, offset: UInt64) { address = address + offset }

  /// The address that is a number of bytes before `address`.
  @inlinable @inline(__always)
  public static func - (address: Self, offset: UInt64) -> Self {
    Self(rawValue: address.rawValue - offset)
  }

  /// The number of bytes from `start` to `address`.
  @inlinable @inline(__always)
  public static func - (address: Self, start: Self) -> UInt64 { address.rawValue - start.rawValue }

  /// The same, around the end of the 64-bit numbers.
  @inlinable @inline(__always)
  public static func &- (address: Self, start: Self) -> UInt64 {
    address.rawValue &- start.rawValue
  }

  /// The start of the page or block of `size` bytes, a power of two, that the address is in.
  @inlinable @inline(__always)
  public func aligned(to size: UInt64) -> Self { Self(rawValue: rawValue & ~(size &- 1)) }

  /// The first start of a page or block of `size` bytes from the address on.
  @inlinable @inline(__always)
  public func alignedUp(to size: UInt64) -> Self {
    Self(rawValue: (rawValue &+ (size &- 1)) & ~(size &- 1))
  }

  /// The number of bytes from the start of the page or block of `size` bytes to the address.
  @inlinable @inline(__always)
  public func offset(in size: UInt64) -> UInt64 { rawValue & (size &- 1) }

  /// Whether the address is the start of a page or block of `size` bytes.
  @inlinable @inline(__always)
  public func isAligned(to size: UInt64) -> Bool { offset(in: size) == 0 }

  /// Whether the address has at most as many bits, less than 64.
  @inlinable @inline(__always)
  public func fits(bits: Int) -> Bool {
    rawValue &>> UInt64(truncatingIfNeeded: bits) == 0
  }
}

extension Range where Bound: MachineAddress {
  /// The number of bytes.
  var size: UInt64 { upperBound - lowerBound }
}
