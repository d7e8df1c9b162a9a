defmodule Causeway.Store.Event do
  @moduledoc """
  What a subscriber of a store receives, as `{:causeway, ref, %Causeway.Store.Event{}}`: one committed
  transaction, or several that came together from a peer, never a part of one.

    * `:clock` - what the store had seen with it; to be given to `Causeway.Store.subscribe/3` as `:since`
    * `:changes` - below the prefix, in the order of their paths, as of `Causeway.Doc.diff/3`: `{path, kind, old, new}`
    * `:jump` - whether there were, or may have been, changes before this one that are not in it, because the subscriber
      was too slow, asked for too long ago, or a process of the store has crashed; `:changes` is then empty, and
      `:snapshot` is what to go on from
    * `:snapshot` - the store as of this event, a `Causeway.Doc`
  """
  defstruct [:clock, :snapshot, changes: [], jump: false]

  @type t :: %__MODULE__{
          clock: Causeway.Clock.t(),
          snapshot: Causeway.Doc.t(),
          changes: [Causeway.Doc.change()],
          jump: boolean()
        }
end
