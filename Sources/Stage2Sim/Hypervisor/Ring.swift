/// The last elements that were appended. Each has a number, from 0.
///
/// The elements are not in an array of an object, because each access would check the references to the array, its bounds, and
/// other accesses to the object. For an event of a machine, these checks cost more than all the rest (scripts/bench). The
/// memory belongs to the ring alone, and ``start`` and ``end`` bound the elements.
public final class Ring<Element> {
  /// The part of a ring that an element changes.
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

    /// Appends an element. A full ring loses its oldest element.
    @inlinable @inline(__always)
    public mutating func append(_ element: Element) {
      let place = elements + Int(truncatingIfNeeded: end & mask)
      if end > mask { place.pointee = element } else { place.initialize(to: element) }
      end &+= 1
    }
  }

  @usableFromInline let state: UnsafeMutablePointer<State>

  /// An empty ring. It takes memory as it fills.
  ///
  /// - Parameter capacity: The number of elements that are kept, a power of two.
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

  /// The number of the next element, which is the number of elements that there ever were.
  @inlinable
  public var end: UInt64 { state.pointee.end }

  /// The number of the first element that is still there.
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

  /// Appends an element. A full ring loses its oldest element.
  @inlinable
  public func append(_ element: Element) { state.pointee.append(element) }
}
