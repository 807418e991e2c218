/// The last of what was appended, each with the number that it had, from 0.
///
/// Not an array of an object: each access of one would check that nobody else holds it, its bounds, and that nobody else
/// changes the object; for an event of a machine that is more than all the rest (scripts/bench). All of this is in
/// memory that the ring alone has, and elements are only found by ``start`` and ``end``.
public final class Ring<Element> {
  /// What an element changes.
  public struct State {
    /// Uninitialized from `end` on in the first round.
    @usableFromInline let elements: UnsafeMutablePointer<Element>
    /// The capacity less one.
    @usableFromInline let mask: UInt64
    @usableFromInline var end: UInt64 = 0

    @usableFromInline
    init(capacity: Int) {
      precondition(capacity.nonzeroBitCount == 1, "\(capacity) is no power of two")
      elements = .allocate(capacity: capacity)
      mask = UInt64(capacity - 1)
    }

    /// Appends an element, in the place of the oldest where there is no other.
    @inlinable @inline(__always)
    public mutating func append(_ element: Element) {
      let place = elements + Int(truncatingIfNeeded: end & mask)
      if end > mask { place.pointee = element } else { place.initialize(to: element) }
      end &+= 1
    }
  }

  @usableFromInline let state: UnsafeMutablePointer<State>

  /// An empty ring. It takes memory as it is filled.
  ///
  /// - Parameter capacity: How many are kept, a power of two.
  public init(capacity: Int) {
    state = .allocate(capacity: 1)
    state.initialize(to: State(capacity: capacity))
  }

  deinit {
    let elements = state.pointee.elements
    elements.deinitialize(count: Int(end - start))
    elements.deallocate()
    state.deallocate()
  }

  /// How many there ever were: the number of the next.
  @inlinable
  public var end: UInt64 { state.pointee.end }

  /// The number of the first that is still there.
  @inlinable
  public var start: UInt64 { end > state.pointee.mask ? end - state.pointee.mask - 1 : 0 }

  /// The element of a number from ``start`` up to, but not, ``end``.
  @inlinable
  public subscript(number: UInt64) -> Element {
    precondition(number >= start && number < end, "\(number) is not in the ring")
    return state.pointee.elements[Int(truncatingIfNeeded: number & state.pointee.mask)]
  }

  /// Calls `body` for each element from a number on that is still there.
  @inlinable
  public func forEach(from first: UInt64, _ body: (borrowing Element) -> Void) {
    for number in max(first, start)..<end {
      body(state.pointee.elements[Int(truncatingIfNeeded: number & state.pointee.mask)])
    }
  }

  /// Appends an element, in the place of the oldest where there is no other.
  @inlinable
  public func append(_ element: Element) { state.pointee.append(element) }
}
